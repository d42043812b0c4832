"""nvJPEG on a real GPU decodes the CPU's pixels up to rounding, in several threads at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from d2serve.inputs.jpeg_decoders import JpegDecoder, decode_on_cpu, jpeg_decoder
from tests.bodies import image_bytes, noise
from tests.inputs.test_image_decoders import ARITHMETIC, JPEGS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
# nvJPEG interpolates chroma differently, at most this much on smooth images.
ROUNDING = 8


@pytest.fixture(scope="module")
def decode() -> JpegDecoder:
    return jpeg_decoder("device", torch.device("cuda", 0))


@pytest.mark.parametrize("name", JPEGS)
def test_pixels_equal_those_of_the_cpu(name: str, decode: JpegDecoder) -> None:
    image, options = JPEGS[name]
    body = image_bytes(image, "JPEG", **options)
    found, expected = decode(body), decode_on_cpu(body)
    assert found.shape == expected.shape
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= ROUNDING


def test_files_that_nvjpeg_rejects_are_decoded_on_the_cpu(decode: JpegDecoder) -> None:
    np.testing.assert_array_equal(decode(ARITHMETIC), decode_on_cpu(ARITHMETIC))
    with pytest.raises(RuntimeError, match="truncated"):
        decode(image_bytes(noise(40, 60, 3), "JPEG")[:-40])
    # The device still works.
    np.testing.assert_allclose(decode(image_bytes(noise(8, 8, 3) // 255, "JPEG")).max(), 0, atol=8)


def test_threads_decode_at_once_with_the_same_result(decode: JpegDecoder) -> None:
    bodies = [image_bytes(noise(200 + 8 * index, 300, 3), "JPEG") for index in range(16)]
    expected = [decode(body) for body in bodies]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for found, alone in zip(pool.map(decode, bodies), expected, strict=True):
                np.testing.assert_array_equal(found, alone)
