"""Preprocessing of images: resizing, padding to a batch, transfer to and from the device."""

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
    """Resizing and channel order of a network's input, in pixels."""

    @property
    def channel_order(self) -> str:
        """`RGB`, `BGR`, `RGBA` or `L`."""
        ...

    @property
    def is_grey(self) -> bool:
        """True if images are converted to grey."""
        ...

    @property
    def min_size(self) -> int:
        """Target of the shorter side; 0 for no resizing."""
        ...

    @property
    def max_size(self) -> int:
        """Limit of the longer side."""
        ...


def shortest_edge_size(size_hw: tuple[int, int], min_size: int, max_size: int) -> tuple[int, int]:
    """Height and width after resizing (`ResizeShortestEdge.get_output_shape`).

    The shorter side becomes `min_size` unless the longer one would then exceed `max_size`;
    `min_size` 0 keeps the size.
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
    # An image of extreme proportions keeps at least one pixel.
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))


def resize_image(image: npt.NDArray[np.uint8], config: Resizing) -> Tensor:
    """Resize UInt8[H, W, 3] RGB to UInt8[3, H', W'] in the config's channel order.

    Pillow's bilinear filter, as in Detectron2: a fourth channel weights the other three. Grey
    images become UInt8[1, H', W'].
    """
    height, width = shortest_edge_size(
        (image.shape[0], image.shape[1]), config.min_size, config.max_size
    )
    converted = Image.fromarray(image)
    if config.is_grey:
        converted = converted.convert("L")
    resized = converted.resize((width, height), Image.Resampling.BILINEAR)
    return _planar(np.asarray(resized), config)


def resize_planar(image: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize UInt8[C, H, W] of `planar` on the CPU as `resize_image` does."""
    height, width = size_hw
    interleaved = image.permute(1, 2, 0).numpy()
    pixels = interleaved[:, :, 0] if image.shape[0] == 1 else interleaved
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    resized_pixels = np.array(resized)  # a copy, because torch warns about read-only arrays
    channels_last = resized_pixels[:, :, None] if resized_pixels.ndim == 2 else resized_pixels
    return torch.from_numpy(channels_last).permute(2, 0, 1)


def planar(image: npt.NDArray[np.uint8], config: Resizing) -> Tensor:
    """UInt8[H, W, 3] RGB -> UInt8[3, H, W] in the config's channel order, not resized.

    Grey images become UInt8[1, H, W]; a fourth channel stays.
    """
    grey = config.is_grey
    return _planar(np.asarray(Image.fromarray(image).convert("L")) if grey else image, config)


def _planar(image: npt.NDArray[np.uint8], config: Resizing) -> Tensor:
    # A copy in all cases, because torch warns about read-only arrays.
    if image.ndim == 2:
        return torch.from_numpy(image[None].copy())
    to_bgr = cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    ordered = cv2.cvtColor(image, to_bgr) if config.channel_order == "BGR" else image.copy()
    return torch.from_numpy(ordered).permute(2, 0, 1)


def resize_on_device(image: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize UInt8[C, H, W], C 1 or 3, to UInt8[C, H', W'], within 1 of `resize_image`'s values.

    Like Pillow, it resizes columns first, then rows, and rounds to integers after each.
    """
    height, width = size_hw
    pixels = image[None]
    for size in ((image.shape[-2], width), (height, width)):
        if size != pixels.shape[-2:]:
            pixels = F.interpolate(pixels.float(), size, mode="bilinear", antialias=True)
            pixels = pixels.add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)
    return pixels[0]


def padded_size(
    size_hw: tuple[int, int], divisibility: int, square_size: int = 0
) -> tuple[int, int]:
    """Height and width, or `square_size` unless it is 0, rounded up to multiples of
    `divisibility`."""
    sides = (square_size, square_size) if square_size else size_hw
    height, width = (-(-side // divisibility) * divisibility for side in sides)
    return height, width


def pad_to_batch(images: Sequence[Tensor], divisibility: int, square_size: int = 0) -> Tensor:
    """Pad Float[C, H, W] each to Float[N, C, H', W'], zeros at right and bottom (`ImageList`).

    H' and W' are the `padded_size` of the largest height and width.
    """
    largest = [max(image.shape[side] for image in images) for side in (-2, -1)]
    height, width = padded_size((largest[0], largest[1]), divisibility, square_size)
    batch = images[0].new_zeros((len(images), images[0].shape[0], height, width))
    for padded, image in zip(batch, images, strict=True):
        padded[:, : image.shape[-2], : image.shape[-1]] = image
    return batch


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to the device; to a GPU asynchronously, through pinned memory.

    The host would wait for a copy from pageable memory.
    """
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors to the CPU in one copy, with one synchronization.

    Args:
        tensors: Float32, or integers below 2^24, of any shapes.

    Returns:
        The tensors themselves if they are on the CPU, else Float32 copies.
    """
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return list(tensors)
    packed = pack(tensors)
    pinned = torch.empty(packed.shape, pin_memory=True)
    pinned.copy_(packed, non_blocking=True)
    torch.cuda.current_stream(packed.device).synchronize()
    return unpack(pinned, [tensor.shape for tensor in tensors])


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate all values to Float32[S]."""
    return torch.cat([tensor.flatten().float() for tensor in tensors])


def unpack(packed: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Split the result of `pack` into views of the original shapes."""
    parts = packed.split([shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
