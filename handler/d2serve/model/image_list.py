"""Images on their way into the network: resizing, padding into a batch, transfer to the device."""

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


class Resizing(Protocol):
    """How a picture enters the network; sizes in pixels, `min_size` 0 means no resize."""

    @property
    def channel_order(self) -> str:
        """`RGB` or `BGR`."""
        ...

    @property
    def min_size(self) -> int:
        """What the shorter side becomes."""
        ...

    @property
    def max_size(self) -> int:
        """What the longer side does not exceed."""
        ...


def shortest_edge_size(size_hw: tuple[int, int], min_size: int, max_size: int) -> tuple[int, int]:
    """Height and width after resizing (`ResizeShortestEdge.get_output_shape`).

    The shorter side becomes `min_size` unless the longer one would then exceed `max_size`;
    `min_size` 0 leaves the size as it is.
    """
    if min_size == 0:
        return size_hw
    height, width = size_hw
    scale = min_size / min(height, width)
    new_height, new_width = (
        (float(min_size), scale * width) if height < width else (scale * height, float(min_size))
    )
    if max(new_height, new_width) > max_size:
        scale = max_size / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    # A picture of extreme proportions keeps at least one pixel.
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))


def resize_picture(picture: npt.NDArray[np.uint8], config: Resizing) -> Tensor:
    """UInt8[H, W, 3] RGB -> UInt8[3, H', W'] in the config's channel order, PIL bilinear."""
    height, width = shortest_edge_size(
        (picture.shape[0], picture.shape[1]), config.min_size, config.max_size
    )
    resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
    return planar(np.asarray(resized), config)


def planar(picture: npt.NDArray[np.uint8], config: Resizing) -> Tensor:
    """UInt8[H, W, 3] RGB -> UInt8[3, H, W] in the config's channel order, not resized."""
    # A copy in any case: torch warns of arrays that must not be written to.
    ordered = (
        cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        if config.channel_order == "BGR"
        else picture.copy()
    )
    return torch.from_numpy(ordered).permute(2, 0, 1)


def resize_on_device(image: Tensor, config: Resizing) -> Tensor:
    """UInt8[3, H, W] -> UInt8[3, H', W'] as `resize_picture` does it, within 1 of its values.

    As Pillow: columns first, then rows, rounded to whole numbers after each.
    """
    height, width = shortest_edge_size(
        (image.shape[-2], image.shape[-1]), config.min_size, config.max_size
    )
    pixels = image[None]
    for size in ((image.shape[-2], width), (height, width)):
        if size != pixels.shape[-2:]:
            pixels = F.interpolate(pixels.float(), size, mode="bilinear", antialias=True)
            pixels = pixels.add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)
    return pixels[0]


def padded_size(
    size_hw: tuple[int, int], divisibility: int, square_size: int = 0
) -> tuple[int, int]:
    """Height and width rounded up to what the backbone divides by, from its square where it has
    one."""
    sides = (square_size, square_size) if square_size else size_hw
    height, width = (-(-side // divisibility) * divisibility for side in sides)
    return height, width


def pad_to_batch(images: Sequence[Tensor], divisibility: int, square_size: int = 0) -> Tensor:
    """Float[3, H, W] each -> Float[N, 3, H', W'], zeros at right and bottom (`ImageList`).

    H' and W' are multiples of `divisibility`; both are `square_size`, rounded up, unless it is 0.
    """
    largest = [max(image.shape[side] for image in images) for side in (-2, -1)]
    height, width = padded_size((largest[0], largest[1]), divisibility, square_size)
    batch = images[0].new_zeros((len(images), images[0].shape[0], height, width))
    for slot, image in zip(batch, images, strict=True):
        slot[:, : image.shape[-2], : image.shape[-1]] = image
    return batch


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host's on the device; a GPU takes it out of pinned memory when it gets there.

    A copy out of pageable memory would have the host wait.
    """
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Float32, or integers below 2^24, of any shapes: in one copy and after one wait.

    They come as they are from a CPU, and as Float32 from a GPU.
    """
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return list(tensors)
    packed = pack(tensors)
    pinned = torch.empty(packed.shape, pin_memory=True)
    pinned.copy_(packed, non_blocking=True)
    torch.cuda.current_stream(packed.device).synchronize()
    return unpack(pinned, [tensor.shape for tensor in tensors])


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Float32[S]: all values one after the other."""
    return torch.cat([tensor.flatten().float() for tensor in tensors])


def unpack(packed: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Views of what `pack` made, in their shapes."""
    parts = packed.split([shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
