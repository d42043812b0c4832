"""Faults of this process are not reported as damaged files."""

import json
import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from d2serve.detections import RGBImage
from d2serve.errors import RequestError
from d2serve.inputs.images import decode_image
from d2serve.inputs.jpeg_decoders import decode_on_cpu
from tests.bodies import image_bytes, noise
from tests.core.requests import pipeline, request_of

MAX_PIXELS = 10_000
JPEG = image_bytes(noise(12, 17, 3), "JPEG")
PNG = image_bytes(noise(12, 17, 3), "PNG")
FAULTS = {
    "memory": MemoryError(),
    "gpu-memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "allocator": RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: failed"),
    "missing-operator": NotImplementedError("Could not run 'image::decode_jpeg'"),
    "missing-library": ImportError("libjpeg.so.8: cannot open shared object file"),
    "our-bug": AttributeError("'NoneType' object has no attribute 'shape'"),
    "our-assertion": AssertionError(),
    "recursion": RecursionError("maximum recursion depth exceeded"),
    "gpu": RuntimeError("CUDA error: an illegal memory access was encountered"),
}
PILLOW_FAULTS = {
    "memory": MemoryError(),
    "decoder": OSError("decoder zip not available"),
    "codec-memory": OSError("out of memory error when reading image file"),
    "files": OSError(24, "Too many open files"),
    "our-bug": AttributeError("no attribute"),
}


def failing(error: Exception) -> Callable[[bytes], RGBImage]:
    def decode(body: bytes) -> RGBImage:
        raise error

    return decode


@pytest.mark.parametrize("name", FAULTS)
def test_fault_of_the_jpeg_decoder_is_not_a_damaged_file(name: str) -> None:
    with pytest.raises(type(FAULTS[name])) as raised:
        decode_image(JPEG, MAX_PIXELS, failing(FAULTS[name]))
    assert raised.value is FAULTS[name]


@pytest.mark.parametrize("name", PILLOW_FAULTS)
def test_fault_of_pillow_is_not_a_damaged_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error = PILLOW_FAULTS[name]

    def load(image: object) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(type(error)) as raised:
        decode_image(PNG, MAX_PIXELS)
    assert raised.value is error


@pytest.mark.parametrize("kind", [TypeError, ValueError, IndexError, OSError])
def test_error_of_our_own_conversion_is_not_a_damaged_file(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow raises errors of the same classes for damaged files."""
    error = kind("ours")

    def convert(*_: object, **__: object) -> RGBImage:
        raise error

    monkeypatch.setattr("d2serve.inputs.images.decode_with_pillow", convert)
    with pytest.raises(kind) as raised:
        decode_image(PNG, MAX_PIXELS)
    assert raised.value is error


@pytest.mark.parametrize("name", ["memory", "allocator", "missing-operator", "our-bug"])
def test_fault_is_a_500_with_a_traceback_in_the_log(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    served = pipeline(decode_jpeg=failing(FAULTS[name]))
    [response] = served.run([request_of(JPEG)])
    assert response.status == 500
    assert json.loads(response.body)["error"]["code"] == "internal"
    [record] = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert record.exc_info
    assert record.exc_info[1] is FAULTS[name]


def test_pillow_decides_whether_a_jpeg_is_damaged(caplog: pytest.LogCaptureFixture) -> None:
    refusing = failing(RuntimeError("an unusual marker"))
    difference = decode_image(JPEG, MAX_PIXELS, refusing).astype(int) - decode_on_cpu(JPEG)
    assert np.abs(difference).max() <= 2
    [record] = caplog.records
    assert record.exc_info
    with pytest.raises(RequestError, match="truncated or damaged"):
        decode_image(JPEG[:-100], MAX_PIXELS, refusing)
    assert len(caplog.records) == 1


def jpeg_with_frame(marker: int, precision: int = 8, components: int = 3) -> bytes:
    """A JPEG with another coding, precision or number of components in its header."""
    at = JPEG.index(b"\xff\xc0")
    head = bytes([precision]) + JPEG[at + 5 : at + 9] + bytes([components])
    return JPEG[: at + 1] + bytes([marker]) + JPEG[at + 2 : at + 4] + head + JPEG[at + 10 :]


BMP = image_bytes(Image.fromarray(noise(12, 17, 3)), "BMP")
UNSUPPORTED = {
    "jpeg-12-bit": (jpeg_with_frame(0xC1, precision=12), "JPEG with 12 bits per channel"),
    "jpeg-two-channels": (jpeg_with_frame(0xC0, components=2), "channels: 2"),
    "jpeg-lossless": (jpeg_with_frame(0xC3, precision=16), "a lossless JPEG with 16 bits"),
    "jpeg-hierarchical": (jpeg_with_frame(0xC5), "a hierarchical JPEG"),
    "bmp-with-a-png": (BMP[:30] + b"\5\0\0\0" + BMP[34:], "a BMP with 24 bits per pixel and"),
    "bmp-with-a-jpeg": (BMP[:30] + b"\4\0\0\0" + BMP[34:], "compression 4"),
    "bmp-2-bit": (BMP[:28] + b"\2\0" + BMP[30:], "a BMP with 2 bits per pixel"),
    "bmp-64-bit": (BMP[:28] + b"\x40\0" + BMP[30:], "a BMP with 64 bits per pixel"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_coding_is_a_422_that_names_it(name: str) -> None:
    body, expected = UNSUPPORTED[name]
    with pytest.raises(RequestError) as raised:
        decode_image(body, MAX_PIXELS)
    assert raised.value.status == 422
    assert expected in raised.value.message
    assert "8 or 16 bits" in raised.value.hint
