"""Arrays and 16-bit images are converted without temporary arrays of their full size."""

import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from d2serve.inputs.arrays import read_array
from d2serve.inputs.images import decode_with_pillow
from d2serve.inputs.strips import STRIP_VALUES, to_uint8
from d2serve.messages import Options
from d2serve.settings import Settings
from tests.bodies import noise

HEIGHT, WIDTH = 1_500, 2_000
OUTPUT_BYTES = HEIGHT * WIDTH * 3
# Temporary arrays of one strip: up to four of 4 bytes per value.
STRIP_BYTES = 20 * STRIP_VALUES
VALUES = noise(HEIGHT, WIDTH, 3)
ARRAYS: dict[str, npt.NDArray[Any]] = {
    "uint8": VALUES,
    "uint16": VALUES.astype(np.uint16) * 257,
    "float16": (VALUES / 255).astype(np.float16),
    "float32": (VALUES / 255).astype(np.float32),
    "float64": VALUES / 255,
    "float32-chw": np.moveaxis((VALUES / 255).astype(np.float32), 2, 0),
    "float32-big-endian": (VALUES / 255).astype(">f4"),
    "bool": VALUES > 127,
}


@pytest.mark.parametrize("name", ARRAYS)
def test_peak_is_the_image_and_one_strip(name: str) -> None:
    tracemalloc.start()
    try:
        read = read_array(ARRAYS[name], Options(0.0, 100), Settings())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read.images[0].shape == (HEIGHT, WIDTH, 3)
    assert OUTPUT_BYTES <= peak <= OUTPUT_BYTES + STRIP_BYTES


def test_peak_of_a_16_bit_image_is_its_pixels_and_one_strip() -> None:
    image = Image.fromarray(noise(HEIGHT, WIDTH).astype(np.uint16) * 257)
    tracemalloc.start()
    try:
        decode_with_pillow(image)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Pillow hands over its pixels as bytes, 2 or 3 per pixel, and keeps its own elsewhere.
    assert peak <= 2 * OUTPUT_BYTES + STRIP_BYTES


@pytest.mark.parametrize(
    "shape", [(0, 4, 3), (1, 1, 1), (7, STRIP_VALUES, 2), (3 * STRIP_VALUES, 1, 1), (1, 900_000)]
)
def test_strips_cover_the_array(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
    converted = to_uint8(array, lambda strip: (strip % 251).astype(np.uint8))
    np.testing.assert_array_equal(converted, array % 251)
