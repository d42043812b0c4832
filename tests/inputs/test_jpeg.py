"""Choice of the JPEG decoder; without a GPU, the CPU stands in for nvJPEG."""

import logging
import threading
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from d2serve.detections import RGBImage
from d2serve.errors import DeviceLostError, SettingsError
from d2serve.inputs import jpeg_decoders
from d2serve.inputs.formats.jpeg import jpeg_has_end, jpeg_is_rgb
from d2serve.inputs.images import decode_image
from d2serve.inputs.jpeg_decoders import decode_on_cpu, decode_on_gpu, jpeg_decoder
from d2serve.inputs.jpeg_operators import DECODE_JPEG, nvjpeg_operator
from d2serve.torchvision_ops import Operator
from tests.bodies import image_bytes, noise
from tests.inputs.test_image_decoders import ARITHMETIC, JPEGS

MAX_PIXELS = 50_000_000
BODY = image_bytes(noise(40, 60, 3), "JPEG")
GPU = torch.device("cuda", 1)


class NvJpeg:
    """A stand-in for torchvision's operator, and for torch, on a machine with a GPU."""

    def __init__(self, failure: str = "") -> None:
        self.failure = failure
        self.device_failure = ""
        self.decoded: list[bytes] = []
        self.streams: list[object] = []

    def __call__(self, encoded: Sequence[Tensor], mode: int, device: torch.device) -> list[Tensor]:
        assert device == GPU
        self.decoded += [each.numpy().tobytes() for each in encoded]
        if self.failure:
            raise RuntimeError(self.failure)
        # Inverted, to distinguish them from the CPU's pixels.
        return [255 - DECODE_JPEG(each, mode, False) for each in encoded]

    def stream(self, device: torch.device) -> object:
        """As torch.cuda.Stream."""
        assert device == GPU
        self.streams.append(object())
        return self.streams[-1]

    def synchronize(self, device: torch.device) -> None:
        """As torch.cuda.synchronize."""
        assert device == GPU
        if self.device_failure:
            raise RuntimeError(self.device_failure)

    def operator(self, device: torch.device) -> Operator:
        """As `nvjpeg_operator`, without its check."""
        assert device == GPU
        return Operator("decode_jpegs_cuda", [lambda: self], callable)


@pytest.fixture
def nvjpeg(monkeypatch: pytest.MonkeyPatch) -> NvJpeg:
    operators = NvJpeg()
    monkeypatch.setattr(torch.cuda, "Stream", operators.stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "synchronize", operators.synchronize)
    monkeypatch.setattr(jpeg_decoders, "STREAMS", jpeg_decoders.ThreadStreams())
    return operators


def test_cpu_decodes_by_default() -> None:
    assert jpeg_decoder("cpu", GPU) is decode_on_cpu


def test_gpu_decodes_with_decode_device(nvjpeg: NvJpeg) -> None:
    pixels = jpeg_decoder("device", GPU, nvjpeg.operator)(BODY)
    np.testing.assert_array_equal(pixels, 255 - decode_on_cpu(BODY))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (40, 60, 3)
    assert nvjpeg.decoded == [BODY]


def test_decode_device_without_a_gpu_is_a_settings_error() -> None:
    expected = r"decode is 'device', which requires a GPU, but the network runs on the CPU; use cpu"
    with pytest.raises(SettingsError, match=expected):
        jpeg_decoder("device", torch.device("cpu"))


def test_decode_device_without_nvjpeg_is_a_settings_error() -> None:
    def without(device: torch.device) -> Operator:
        return Operator("decode_jpegs_cuda", [], callable)

    with pytest.raises(SettingsError, match=r"this torchvision has no nvJPEG; use cpu"):
        jpeg_decoder("device", GPU, without)


def test_nvjpeg_is_checked_with_a_sample_on_the_device(nvjpeg: NvJpeg) -> None:
    operator = nvjpeg_operator(GPU)
    assert not operator.check(nvjpeg)  # its colors are inverted
    assert operator.check(lambda files, *rest: [255 - pixels for pixels in nvjpeg(files, *rest)])


def test_missing_decoder_does_not_mean_a_damaged_image() -> None:
    missing = Operator("decode_jpeg", [], callable)

    def decode(body: bytes) -> RGBImage:
        pixels: RGBImage = missing(body)
        return pixels

    with pytest.raises(ImportError, match="torchvision has no usable operator decode_jpeg"):
        decode_image(BODY, MAX_PIXELS, decode)


def test_cpu_decodes_files_that_nvjpeg_rejects(nvjpeg: NvJpeg) -> None:
    nvjpeg.failure = "nvjpegDecodeJpegHost failed: 3"
    for body in (BODY, ARITHMETIC):
        np.testing.assert_array_equal(decode_on_gpu(body, GPU, nvjpeg), decode_on_cpu(body))
    assert nvjpeg.decoded == [BODY, ARITHMETIC]


def test_rejected_files_are_logged_at_info(
    nvjpeg: NvJpeg, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    nvjpeg.device_failure = "CUDA error: the device is not checked"
    for status in (3, 4, 9, 10):
        nvjpeg.failure = f"nvjpegJpegStreamParse failed: {status}"
        decode_on_gpu(BODY, GPU, nvjpeg)
    assert [record.levelno for record in caplog.records] == [logging.INFO] * 4


@pytest.mark.parametrize(
    "failure",
    [
        "nvjpegDecodeBatched failed: 8",
        "nvjpegDecodeJpegHost failed: 30",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "nvjpegCreate failed: 5",
    ],
)
def test_other_errors_of_a_working_gpu_are_warnings_with_a_traceback(
    nvjpeg: NvJpeg, caplog: pytest.LogCaptureFixture, failure: str
) -> None:
    nvjpeg.failure = failure
    np.testing.assert_array_equal(decode_on_gpu(BODY, GPU, nvjpeg), decode_on_cpu(BODY))
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.exc_info


@pytest.mark.parametrize(
    ("failure", "device_failure"),
    [
        ("CUDA error: an illegal memory access was encountered", ""),
        ("CUDA error: unspecified launch failure", "CUDA error: unspecified launch failure"),
        ("nvjpegDecodeBatched failed: 8", "CUDA error: an illegal memory access was encountered"),
        ("an unknown error", "CUDA error: uncorrectable ECC error encountered"),
    ],
)
def test_lost_gpu_is_not_hidden(nvjpeg: NvJpeg, failure: str, device_failure: str) -> None:
    nvjpeg.failure, nvjpeg.device_failure = failure, device_failure
    with pytest.raises(DeviceLostError, match=device_failure or failure):
        decode_on_gpu(BODY, GPU, nvjpeg)


def test_each_thread_has_one_stream(nvjpeg: NvJpeg) -> None:
    def decode_three() -> None:
        for _ in range(3):
            decode_on_gpu(BODY, GPU, nvjpeg)

    decode_three()
    assert len(nvjpeg.streams) == 1
    threads = [threading.Thread(target=decode_three) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join(timeout=30)
    assert len(nvjpeg.decoded) == 9
    assert len(nvjpeg.streams) == 3


def test_truncated_file_is_rejected_by_the_cpu(nvjpeg: NvJpeg) -> None:
    with pytest.raises(RuntimeError, match="truncated"):
        decode_on_gpu(BODY[:-200], GPU, nvjpeg)
    assert nvjpeg.decoded == []


def test_end_marker_of_a_thumbnail_does_not_count() -> None:
    thumbnail = image_bytes(noise(8, 8, 3), "JPEG")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    framed = BODY[:2] + segment + BODY[2:]
    for body in (BODY, framed, BODY + b"\0" * 100, ARITHMETIC):
        assert jpeg_has_end(body)
    for body in (BODY[:-2], framed[:-200], BODY[:100]):
        assert not jpeg_has_end(body)


# Components Y, Cb, Cr with ids 1, 2, 3 and a JFIF segment; R, G, B with these ids and Adobe's.
YCBCR = image_bytes(noise(16, 16, 3), "JPEG", subsampling=0)
STORED_RGB = image_bytes(noise(16, 16, 3), "JPEG", keep_rgb=True)
JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
assert JFIF in YCBCR
assert ADOBE + b"\x00" in STORED_RGB


@pytest.mark.parametrize(
    ("body", "is_rgb"),
    [
        pytest.param(YCBCR, False, id="JFIF"),
        pytest.param(YCBCR.replace(JFIF, b""), False, id="ids 1, 2, 3"),
        pytest.param(YCBCR.replace(JFIF, ADOBE + b"\x00"), True, id="Adobe, transform 0"),
        pytest.param(YCBCR.replace(JFIF, ADOBE + b"\x01"), False, id="Adobe, transform 1"),
        pytest.param(YCBCR.replace(JFIF, JFIF + ADOBE + b"\x00"), False, id="JFIF and Adobe"),
        pytest.param(STORED_RGB, True, id="Adobe, ids R, G, B"),
        pytest.param(STORED_RGB.replace(ADOBE + b"\x00", b""), True, id="ids R, G, B"),
        pytest.param(
            STORED_RGB.replace(ADOBE + b"\x00", ADOBE + b"\x01"), False, id="transform 1, R, G, B"
        ),
        pytest.param(STORED_RGB.replace(ADOBE + b"\x00", JFIF), False, id="JFIF and ids R, G, B"),
    ],
)
def test_rgb_jpegs_are_recognized_as_libjpeg_does(body: bytes, is_rgb: bool) -> None:
    assert jpeg_is_rgb(body) == is_rgb
    plain = STORED_RGB if b"\x03R" in body else YCBCR
    as_stored = np.array_equal(decode_on_cpu(body), decode_on_cpu(plain))
    assert as_stored == (is_rgb == (plain is STORED_RGB))


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_gray_and_progressive_jpegs_are_not_rgb(options: dict[str, bool]) -> None:
    assert not jpeg_is_rgb(image_bytes(noise(16, 16), "JPEG", **options))
    assert not jpeg_is_rgb(image_bytes(noise(16, 16, 3), "JPEG", **options))
    assert jpeg_is_rgb(image_bytes(noise(16, 16, 3), "JPEG", keep_rgb=True, **options))


def test_rgb_jpegs_are_left_to_the_cpu(nvjpeg: NvJpeg) -> None:
    np.testing.assert_array_equal(decode_on_gpu(STORED_RGB, GPU, nvjpeg), decode_on_cpu(STORED_RGB))
    assert nvjpeg.decoded == []


@pytest.mark.parametrize(("file_format", "calls"), [("JPEG", 1), ("PNG", 0), ("WEBP", 0)])
def test_jpeg_decoder_is_used_only_for_jpegs(file_format: str, calls: int) -> None:
    bodies = []

    def spy(body: bytes) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
        bodies.append(body)
        return decode_on_cpu(body)

    body = image_bytes(noise(40, 60, 3), file_format)
    assert decode_image(body, MAX_PIXELS, spy).shape == (40, 60, 3)
    assert bodies == [body] * calls


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("name", JPEGS)
def test_nvjpeg_decodes_approximately_the_same_pixels(name: str) -> None:
    image, options = JPEGS[name]
    body = image_bytes(image, "JPEG", **options)
    device = torch.device("cuda", 0)
    on_gpu = decode_on_gpu(body, device, nvjpeg_operator(device)).astype(int)
    on_cpu = decode_on_cpu(body)
    assert on_gpu.shape == on_cpu.shape
    # nvJPEG upsamples subsampled chroma differently.
    assert np.abs(on_gpu - on_cpu).mean() < 3
