"""JPEG decoding with torchvision, on the CPU or with nvJPEG."""

import logging
import re
import threading
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from d2serve.detections import RGBImage
from d2serve.errors import DeviceLostError, SettingsError
from d2serve.inputs.formats.jpeg import jpeg_has_end, jpeg_is_rgb
from d2serve.inputs.jpeg_operators import DECODE_JPEG, RGB, nvjpeg_operator
from d2serve.torchvision_ops import Function, Operator

# Bytes -> UInt8[H, W, 3] RGB, in the orientation of the file.
JpegDecoder: TypeAlias = Callable[[bytes], RGBImage]
logger = logging.getLogger(__name__)
# torch has no exception type for a failed allocation on the CPU.
ALLOCATION_SIGNS = ("out of memory", "DefaultCPUAllocator", "can't allocate memory")
CUDA_SIGN = "CUDA error"
# nvJPEG's status for a damaged, unsupported or incomplete file.
NVJPEG_REJECTED = re.compile(r"nvjpeg\w* failed: (3|4|9|10)\b")


class ThreadStreams(threading.local):
    """The CUDA streams of the calling thread, one for each device."""

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def of(self, device: torch.device) -> torch.cuda.Stream:
        """The stream for a device, created at the first call of the thread."""
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        return self._streams[device]


STREAMS = ThreadStreams()


def decode_on_cpu(body: bytes) -> RGBImage:
    """Decode a JPEG to RGB, in the orientation of the file.

    Raises:
        RuntimeError: the file is damaged; see `is_fault_of_decoder`.
        ImportError: torchvision has no JPEG decoder.
    """
    apply_exif = False  # `decode_image` does it for all formats
    return _to_hwc(DECODE_JPEG(_to_tensor(body), RGB, apply_exif))


def decode_on_gpu(body: bytes, device: torch.device, nvjpeg: Function) -> RGBImage:
    """Decode a JPEG to RGB with nvJPEG, in the orientation of the file.

    Falls back to `decode_on_cpu` for files that nvJPEG cannot decode (arithmetic coding, a
    truncated file) or decodes differently (it takes R, G, B for Y, Cb, Cr), and if the GPU's memory
    is used up.

    Args:
        body: the file.
        device: a GPU.
        nvjpeg: see `nvjpeg_operator`.

    Raises:
        RuntimeError: the file is damaged; see `is_fault_of_decoder`.
        ImportError: see `decode_on_cpu`.
        DeviceLostError: the GPU can no longer be used.
    """
    if not jpeg_has_end(body) or jpeg_is_rgb(body):
        return decode_on_cpu(body)
    try:
        # Not on the network's stream, or the copy would wait for the network.
        with torch.cuda.stream(STREAMS.of(device)):
            [pixels] = nvjpeg([_to_tensor(body)], RGB, device)
            return _to_hwc(pixels)
    except RuntimeError as error:
        if NVJPEG_REJECTED.search(str(error)):
            logger.info("nvJPEG failed, decoding on the CPU: %s", error)
        else:
            _check_device(device, error)
            logger.warning("nvJPEG failed, decoding on the CPU", exc_info=error)
        return decode_on_cpu(body)


def jpeg_decoder(
    decode: str,
    device: torch.device,
    operator: Callable[[torch.device], Operator] = nvjpeg_operator,
) -> JpegDecoder:
    """Load the decoder for the setting `decode`.

    Args:
        decode: `cpu` or `device`.
        device: the network's device.
        operator: returns the nvJPEG decoder of a device.

    Raises:
        SettingsError: the device is not a GPU, or torchvision has no nvJPEG decoder.
        ImportError: torchvision has no JPEG decoder.
    """
    DECODE_JPEG.load()
    if decode == "cpu":
        return decode_on_cpu
    if device.type != "cuda":
        raise SettingsError(
            f"handler setting decode is {decode!r}, which requires a GPU, but the network runs on "
            f"the {device.type.upper()}; use cpu"
        )
    try:
        nvjpeg = operator(device).load()
    except ImportError as error:
        raise SettingsError(
            f"handler setting decode is {decode!r}, but this torchvision has no nvJPEG; use cpu"
        ) from error
    return lambda body: decode_on_gpu(body, device, nvjpeg)


def is_fault_of_decoder(error: RuntimeError) -> bool:
    """Return whether a decoder failed for a reason other than the file.

    A missing operator, a failed allocation, or an error of the GPU.
    """
    if isinstance(error, NotImplementedError | RecursionError | torch.OutOfMemoryError):
        return True
    return any(sign in str(error) for sign in (*ALLOCATION_SIGNS, CUDA_SIGN))


def _check_device(device: torch.device, error: RuntimeError) -> None:
    """Check that the GPU still works after an error of nvJPEG.

    Raises:
        DeviceLostError: all later calls would fail too.
    """
    if CUDA_SIGN in str(error):
        raise DeviceLostError(str(error)) from error
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as lost:
        raise DeviceLostError(str(lost)) from error


def _to_tensor(body: bytes) -> Tensor:
    # A copy, because torch requires writable memory.
    return torch.frombuffer(bytearray(body), dtype=torch.uint8)


def _to_hwc(pixels: Tensor) -> RGBImage:
    image: RGBImage = pixels.permute(1, 2, 0).cpu().numpy()
    return image
