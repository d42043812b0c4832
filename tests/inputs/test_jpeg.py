"""Who decodes JPEGs. What has no GPU has the CPU in nvJPEG's place."""

from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from d2serve.inputs import images as jpeg
from d2serve.inputs.image_guard import jpeg_has_end
from d2serve.inputs.images import decode_image, decode_on_cpu, decode_on_gpu, jpeg_decoder
from d2serve.settings import SettingsError
from tests.bodies import image_bytes, noise
from tests.inputs.test_image_decoders import ARITHMETIC, JPEGS

MAX_PIXELS = 50_000_000
BODY = image_bytes(noise(40, 60, 3), "JPEG")
GPU = torch.device("cuda", 1)


class NvJpeg:
    """torchvision's operators on a machine with a GPU."""

    def __init__(self, failure: str = "") -> None:
        self.failure = failure
        self.decoded: list[bytes] = []
        self.real = jpeg.OPERATORS

    def decode_jpeg(self, encoded: Tensor, mode: int, upright: bool) -> Tensor:
        pixels: Tensor = self.real.decode_jpeg(encoded, mode, upright)
        return pixels

    def decode_jpegs_cuda(
        self, encoded: Sequence[Tensor], mode: int, device: torch.device
    ) -> list[Tensor]:
        assert device == GPU
        self.decoded += [each.numpy().tobytes() for each in encoded]
        if self.failure:
            raise RuntimeError(self.failure)
        # Others than the CPU's, to be told apart.
        return [255 - self.decode_jpeg(each, mode, False) for each in encoded]


@pytest.fixture
def nvjpeg(monkeypatch: pytest.MonkeyPatch) -> NvJpeg:
    operators = NvJpeg()
    monkeypatch.setattr(jpeg, "OPERATORS", operators)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: device)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    return operators


def test_the_cpu_decodes_unless_it_is_told_otherwise() -> None:
    assert jpeg_decoder("cpu", GPU) is decode_on_cpu


def test_the_networks_gpu_decodes_where_it_is_asked_to(nvjpeg: NvJpeg) -> None:
    pixels = jpeg_decoder("device", GPU)(BODY)
    np.testing.assert_array_equal(pixels, 255 - decode_on_cpu(BODY))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (40, 60, 3)
    assert nvjpeg.decoded == [BODY]


def test_without_a_gpu_it_is_refused_in_a_line() -> None:
    expected = r"decode is 'device', which is for GPUs, and the network runs on the CPU; use cpu"
    with pytest.raises(SettingsError, match=expected):
        jpeg_decoder("device", torch.device("cpu"))


def test_without_nvjpeg_it_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg, "OPERATORS", SimpleNamespace(decode_jpeg=None))
    with pytest.raises(SettingsError, match=r"this torchvision has no nvJPEG; use cpu"):
        jpeg_decoder("device", GPU)


def test_what_nvjpeg_gives_up_the_cpu_decodes(nvjpeg: NvJpeg) -> None:
    nvjpeg.failure = "nvjpegDecodeJpegHost failed: 3"
    for body in (BODY, ARITHMETIC):
        np.testing.assert_array_equal(decode_on_gpu(body, GPU), decode_on_cpu(body))
    assert nvjpeg.decoded == [BODY, ARITHMETIC]


def test_a_file_that_breaks_off_is_left_to_the_cpu_which_refuses_it(nvjpeg: NvJpeg) -> None:
    with pytest.raises(RuntimeError, match="truncated"):
        decode_on_gpu(BODY[:-200], GPU)
    assert nvjpeg.decoded == []


def test_the_end_of_a_jpeg_is_its_own() -> None:
    thumbnail = image_bytes(noise(8, 8, 3), "JPEG")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    framed = BODY[:2] + segment + BODY[2:]
    for body in (BODY, framed, BODY + b"\0" * 100, ARITHMETIC):
        assert jpeg_has_end(body)
    for body in (BODY[:-2], framed[:-200], BODY[:100]):
        assert not jpeg_has_end(body)


@pytest.mark.parametrize(("file_format", "calls"), [("JPEG", 1), ("PNG", 0), ("WEBP", 0)])
def test_a_decoder_is_asked_for_jpegs_alone(file_format: str, calls: int) -> None:
    asked = []

    def spy(body: bytes) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
        asked.append(body)
        return decode_on_cpu(body)

    body = image_bytes(noise(40, 60, 3), file_format)
    assert decode_image(body, MAX_PIXELS, spy).shape == (40, 60, 3)
    assert asked == [body] * calls


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("name", JPEGS)
def test_nvjpeg_reads_nearly_the_same_pixels(name: str) -> None:
    image, options = JPEGS[name]
    body = image_bytes(image, "JPEG", **options)
    on_gpu = decode_on_gpu(body, torch.device("cuda", 0)).astype(int)
    on_cpu = decode_on_cpu(body)
    assert on_gpu.shape == on_cpu.shape
    # Chroma of half the size is spread otherwise.
    assert np.abs(on_gpu - on_cpu).mean() < 3
