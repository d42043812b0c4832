"""torchvision's JPEG decoders for CPUs and GPUs.

Each is called with the arguments of the private operator. Errors of a damaged file are
`RuntimeError`s, a missing operator is an `ImportError`.
"""

import io
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from d2serve.torchvision_ops import Function, Operator, library_operator

LIBRARY = NAMESPACE = "image"
RGB = 3  # the value of `torchvision.io.ImageReadMode.RGB`
SAMPLE_COLOR = (200, 100, 50)
SAMPLE_SIDE = 64
ROUNDING = 4  # of converted colors


def _public_decoder() -> Function:
    from torchvision.io import ImageReadMode, decode_jpeg

    def decode(data: Tensor, mode: int, apply_exif: bool) -> Any:
        return decode_jpeg(data, ImageReadMode(mode), apply_exif_orientation=apply_exif)

    return decode


def _public_nvjpeg() -> Function:
    from torchvision.io import ImageReadMode, decode_jpeg

    def decode(files: list[Tensor], mode: int, device: torch.device) -> Any:
        return decode_jpeg(files, ImageReadMode(mode), device)

    return decode


def _sample() -> Tensor:
    """A JPEG of one color, as UInt8[N]."""
    file = io.BytesIO()
    Image.new("RGB", (SAMPLE_SIDE, SAMPLE_SIDE), SAMPLE_COLOR).save(file, "JPEG")
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def _is_sample(pixels: Tensor) -> bool:
    expected = torch.tensor(SAMPLE_COLOR)[:, None, None].expand(-1, SAMPLE_SIDE, SAMPLE_SIDE)
    found = pixels.cpu()
    return found.shape == expected.shape and bool(((found - expected).abs() <= ROUNDING).all())


# UInt8[N], mode, whether to apply the EXIF orientation -> UInt8[3, H, W].
DECODE_JPEG = Operator(
    "decode_jpeg",
    [library_operator(LIBRARY, NAMESPACE, "decode_jpeg"), _public_decoder],
    lambda decode: _is_sample(decode(_sample(), RGB, False)),
)
NVJPEG_SOURCES = (library_operator(LIBRARY, NAMESPACE, "decode_jpegs_cuda"), _public_nvjpeg)


def nvjpeg_operator(device: torch.device) -> Operator:
    """UInt8[N] files, mode, device -> UInt8[3, H, W] images on the device."""
    return Operator(
        "decode_jpegs_cuda",
        NVJPEG_SOURCES,
        lambda decode: _is_sample(decode([_sample()], RGB, device)[0]),
    )
