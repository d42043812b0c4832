"""Who decodes JPEGs: torchvision on the CPU, or nvJPEG by way of it on the network's GPU."""

import logging
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from handler.inputs.image_guard import jpeg_has_end
from handler.pictures import Picture
from handler.settings import SettingsError
from handler.torchvision_parts import load_operators

# Bytes -> UInt8[H, W, 3] RGB, as the picture lies in the file.
JpegDecoder: TypeAlias = Callable[[bytes], Picture]

logger = logging.getLogger(__name__)
OPERATORS = load_operators("image", "image", ["decode_jpeg"])
RGB = 3  # as `torchvision.io.ImageReadMode` numbers it


def jpeg_decoder(decode: str, device: torch.device) -> JpegDecoder:
    """What `handler.decode` asks for.

    Args:
        decode: `cpu` or `device`.
        device: where the network runs.

    Raises:
        SettingsError: the device is no GPU, or torchvision has nothing to decode with on one.
    """
    if decode == "cpu":
        return decode_on_cpu
    if device.type != "cuda":
        raise SettingsError(
            f"handler setting decode is {decode!r}, which is for GPUs, and the network runs on the "
            f"{device.type.upper()}; use cpu"
        )
    if not hasattr(OPERATORS, "decode_jpegs_cuda"):
        raise SettingsError(
            f"handler setting decode is {decode!r}, and this torchvision has no nvJPEG; use cpu"
        )
    return lambda body: decode_on_gpu(body, device)


def decode_on_cpu(body: bytes) -> Picture:
    """UInt8[H, W, 3] RGB of a JPEG, as it lies in the file.

    Raises:
        RuntimeError: the file is damaged.
    """
    upright = False  # that is done for all formats alike
    return _interleaved(OPERATORS.decode_jpeg(_encoded(body), RGB, upright))


def decode_on_gpu(body: bytes, device: torch.device) -> Picture:
    """As `decode_on_cpu`, which also decodes what nvJPEG does not: an arithmetic coding, or a file
    that breaks off.

    Raises:
        RuntimeError: the file is damaged.
    """
    if not jpeg_has_end(body):
        return decode_on_cpu(body)
    try:
        # On a stream of its own, or the copy would wait for the network.
        with torch.cuda.stream(torch.cuda.Stream(device)):
            [pixels] = OPERATORS.decode_jpegs_cuda([_encoded(body)], RGB, device)
            return _interleaved(pixels)
    except RuntimeError as error:
        logger.info("nvJPEG gave up, so the CPU decodes: %s", error)
        return decode_on_cpu(body)


def _encoded(body: bytes) -> Tensor:
    # From a copy: torch wants memory that could be written to.
    return torch.frombuffer(bytearray(body), dtype=torch.uint8)


def _interleaved(pixels: Tensor) -> Picture:
    picture: Picture = pixels.permute(1, 2, 0).cpu().numpy()
    return picture
