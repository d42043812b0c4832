"""Between the host and the device, without either waiting for the other."""

from collections.abc import Sequence

import torch
from torch import Tensor


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
