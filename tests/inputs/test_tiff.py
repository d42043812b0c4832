"""TIFF variants beside a reference written by the specification: equal pixels, or a 422."""

import itertools
import struct
import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from d2serve.errors import RequestError
from d2serve.inputs.images import decode_image
from tests.bodies import image_bytes, noise
from tests.inputs import tiffs
from tests.inputs.tiffs import LONG, SHORT, Tiff, pixels_of, with_directory

MAX_PIXELS = 10_000
HEIGHT, WIDTH = 11, 13
# Pillow takes the upper byte of 16-bit colors, and rounds CMYK and multiplied colors twice.
ROUNDING = 2.5
CHANNELS = {
    tiffs.WHITE_IS_ZERO: 1,
    tiffs.BLACK_IS_ZERO: 1,
    tiffs.RGB: 3,
    tiffs.PALETTE: 1,
    tiffs.CMYK: 4,
    tiffs.YCBCR: 3,
}
BITS = (1, 2, 4, 8, 12, 16, 32)
EXTRAS = ((), (tiffs.UNSPECIFIED,), (tiffs.MULTIPLIED_ALPHA,), (tiffs.ALPHA,))
STORAGE = tuple(itertools.product((1, 2), ("II", "MM"), (tiffs.RAW, tiffs.DEFLATE)))
# Photometric interpretation, bits and extra samples that are served however they are stored.
SERVED = {
    *itertools.product((tiffs.WHITE_IS_ZERO, tiffs.BLACK_IS_ZERO), (1, 2, 4, 8, 16), [()]),
    *itertools.product([tiffs.PALETTE], (1, 2, 4, 8), [()]),
    *itertools.product([tiffs.RGB], (8, 16), EXTRAS),
    *itertools.product([tiffs.CMYK], (8, 16), [()]),
    (tiffs.BLACK_IS_ZERO, 8, (tiffs.ALPHA,)),
    (tiffs.PALETTE, 8, (tiffs.UNSPECIFIED,)),
    (tiffs.PALETTE, 8, (tiffs.ALPHA,)),
    (tiffs.CMYK, 8, (tiffs.UNSPECIFIED,)),
}


def samples_of(photometric: int, bits: int, extra: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Random samples; colors are multiplied by an alpha of at least three quarters."""
    generator = np.random.default_rng(bits)
    most, colors = 2**bits - 1, CHANNELS[photometric]
    samples = generator.integers(0, most, (HEIGHT, WIDTH, colors + len(extra)), endpoint=True)
    if extra == (tiffs.MULTIPLIED_ALPHA,):
        samples[:, :, -1] = samples[:, :, -1] // 4 + most * 3 // 4
        samples[:, :, :-1] = samples[:, :, :-1] * (samples[:, :, -1:] / most)
    return samples


def tiff_of(photometric: int, bits: int, extra: tuple[int, ...], storage: Any) -> Tiff:
    planar, order, compression = storage
    colormap = None
    if photometric == tiffs.PALETTE:
        colors = np.random.default_rng(7).integers(0, 256, (3, 2 ** min(bits, 8)))
        colormap = (colors * 257).astype(np.uint16)
    tags = {530: (SHORT, [1, 1])} if photometric == tiffs.YCBCR else {}
    return Tiff(
        samples_of(photometric, bits, extra), photometric, bits, planar, order, compression,
        extra=extra, rows_per_strip=4, colormap=colormap, tags=tags,
    )  # fmt: skip


def image_or_error(body: bytes) -> npt.NDArray[np.uint8] | RequestError:
    try:
        return decode_image(body, MAX_PIXELS)
    except RequestError as error:
        return error


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("photometric", CHANNELS)
def test_pixels_are_those_of_the_specification_or_a_422(photometric: int, bits: int) -> None:
    for extra, storage in itertools.product(EXTRAS, STORAGE):
        tiff = tiff_of(photometric, bits, extra, storage)
        outcome = image_or_error(tiff.encode())
        if isinstance(outcome, RequestError):
            assert outcome.status == 422, (extra, storage)
            assert f"channels: {tiff.samples.shape[2]}" in outcome.message or bits == 32
            assert "8 or 16 bits" in outcome.hint
            assert (photometric, bits, extra) not in SERVED, storage
        elif photometric != tiffs.PALETTE or bits <= 8:
            difference = np.abs(outcome - pixels_of(tiff)).max()
            assert difference <= ROUNDING, (extra, storage)


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("photometric", [tiffs.WHITE_IS_ZERO, tiffs.BLACK_IS_ZERO])
def test_reversed_bits_are_reversed_again(photometric: int, bits: int, order: Any) -> None:
    samples = samples_of(photometric, bits, ())
    tiff = Tiff(samples, photometric, bits, order=order, tags={266: (SHORT, [2])})
    body = bytearray(tiff.encode())
    size = HEIGHT * -(-WIDTH * bits // 8)
    packed = np.frombuffer(body, np.uint8, size, offset=8)
    body[8 : 8 + size] = np.packbits(np.unpackbits(packed, bitorder="little")).tobytes()
    np.testing.assert_allclose(decode_image(bytes(body), MAX_PIXELS), pixels_of(tiff), atol=1)


def test_12_bits_are_scaled_to_8() -> None:
    for photometric in (tiffs.WHITE_IS_ZERO, tiffs.BLACK_IS_ZERO):
        tiff = Tiff(samples_of(photometric, 12, ()), photometric, 12)
        np.testing.assert_allclose(decode_image(tiff.encode(), MAX_PIXELS), pixels_of(tiff), atol=1)


@pytest.mark.parametrize("photometric", [tiffs.WHITE_IS_ZERO, tiffs.BLACK_IS_ZERO])
def test_16_bit_gray_is_rounded(photometric: int) -> None:
    tiff = Tiff(samples_of(photometric, 16, ()), photometric, 16)
    np.testing.assert_array_equal(decode_image(tiff.encode(), MAX_PIXELS), pixels_of(tiff).round())


WHOLE = {
    "five-bands": (Tiff(noise(9, 9, 5), extra=(0, 0)), None),
    "five-bands-of-gray": (
        Tiff(noise(9, 9, 5), tiffs.BLACK_IS_ZERO, extra=(0, 0, 0, 0)),
        "channels: 5, each 8 bits, unsigned integers, grey",
    ),
    "two-hundred-bands": (
        Tiff(noise(9, 9, 200), tiffs.BLACK_IS_ZERO, extra=(0,) * 199),
        "channels: 200, each 8 bits",
    ),
    "float32-rgb": (
        Tiff(noise(9, 9, 3) / 255, bits=32, sample_format=tiffs.FLOAT),
        "channels: 3, each 32 bits, floating point, RGB",
    ),
    "float16-gray": (
        Tiff(noise(9, 9, 1) / 255, 1, 16, sample_format=tiffs.FLOAT),
        "channels: 1, each 16 bits, floating point, grey",
    ),
    "float64-gray": (
        Tiff(noise(9, 9, 1) / 255, 1, 64, sample_format=tiffs.FLOAT),
        "each 64 bits, floating point",
    ),
    "int8-gray": (
        Tiff(noise(9, 9, 1) - 128.0, 1, 8, sample_format=tiffs.SIGNED),
        "channels: 1, each 8 bits, signed integers, grey",
    ),
    "int16-gray": (
        Tiff(noise(9, 9, 1) - 128.0, 1, 16, sample_format=tiffs.SIGNED),
        "signed integers",
    ),
    "uint32-rgb": (Tiff(noise(9, 9, 3), bits=32), "channels: 3, each 32 bits"),
    "uncompressed-ycbcr": (Tiff(noise(9, 9, 3), tiffs.YCBCR), "YCbCr, compression 1"),
    "color-filter-array": (Tiff(noise(9, 9, 1), 32803, 16), "color filter array"),
    "jpeg-2000": (Tiff(noise(9, 9, 3), tags={259: (SHORT, [34712])}), "compression 34712"),
    "zstandard": (Tiff(noise(9, 9, 3), tags={259: (SHORT, [50000])}), "compression 50000"),
    "lerc": (Tiff(noise(9, 9, 1), 1, tags={259: (SHORT, [34887])}), "compression 34887"),
    "unknown-photometric": (Tiff(noise(9, 9, 3), 99), "an unknown color space"),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_unsupported_pixels_are_a_422_that_names_them(name: str) -> None:
    tiff, expected = WHOLE[name]
    outcome = image_or_error(tiff.encode())
    if expected is None:  # Pillow ignores unspecified channels after R, G, B
        np.testing.assert_array_equal(outcome, tiff.samples[:, :, :3])
        return
    assert isinstance(outcome, RequestError)
    assert (outcome.status, outcome.code) == (422, "unprocessable")
    assert expected in outcome.message
    assert outcome.hint == (
        "send grey, palette, RGB or CMYK pixels with 8 or 16 bits per channel, or an array written "
        "by numpy.save"
    )


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("bits", [8, 16])
def test_truncated_tiff_is_a_400(planar: int, bits: int) -> None:
    tags = {273: (LONG, [9_000_000]), 278: (LONG, [11]), 279: (LONG, [HEIGHT * WIDTH * 3])}
    if planar == 2:
        tags |= {273: (LONG, [9_000_000] * 3), 279: (LONG, [HEIGHT * WIDTH * bits // 8] * 3)}
    body = Tiff(noise(HEIGHT, WIDTH, 3), bits=bits, planar=planar, tags=tags).encode()
    outcome = image_or_error(body)
    assert isinstance(outcome, RequestError)
    assert outcome.status == 400


@pytest.mark.parametrize("tag", [258, 273, 278, 279, 284])
def test_tag_with_values_out_of_the_file_is_a_400(tag: int) -> None:
    body = bytearray(Tiff(noise(9, 9, 3), planar=2, rows_per_strip=4).encode())
    (start,) = struct.unpack_from("<I", body, 4)
    entry = next(
        at for at in range(start + 2, len(body), 12) if body[at] + 256 * body[at + 1] == tag
    )
    struct.pack_into("<II", body, entry + 4, 1 << 24, 1 << 30)
    outcome = image_or_error(bytes(body))
    assert isinstance(outcome, RequestError)
    assert outcome.status == 400


def test_overlapping_planes_are_not_copied() -> None:
    """Planes of 10,000 strips, all of them the same 4 MB, would need 40 GB."""
    tags = {257: (LONG, [1]), 273: (LONG, [8] * 10_000), 279: (LONG, [4_000_000] * 10_000)}
    body = Tiff(noise(1, 4_000, 3), planar=2, tags=tags, gap=4_000_000).encode()
    tracemalloc.start()
    try:
        outcome = image_or_error(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(outcome, RequestError)
    assert outcome.status == 400
    assert peak < 5 * len(body)


def test_missing_size_is_a_400() -> None:
    body = with_directory(bytes(27), {258: (SHORT, [8]), 262: (SHORT, [1])}, "II")
    outcome = image_or_error(body)
    assert isinstance(outcome, RequestError)
    assert outcome.status == 400


def two_pages(second: Tiff) -> bytes:
    """A file with an RGB page of 9x9 pixels, followed by another page."""
    first, other = Tiff(noise(9, 9, 3)).encode(), second.encode()
    (start,) = struct.unpack_from("<I", first, 4)
    (entries,) = struct.unpack_from("<H", first, start)
    pointer = start + 2 + 12 * entries
    (other_start,) = struct.unpack_from("<I", other, 4)
    head = first[:pointer] + struct.pack("<I", len(first) + other_start) + first[pointer + 4 :]
    return head + other


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(Tiff(noise(9, 9, 3) / 255, bits=32, sample_format=3), id="float"),
        pytest.param(Tiff(noise(9, 9, 3), tags={259: (SHORT, [34712])}), id="jpeg-2000"),
        pytest.param(Tiff(noise(9, 9, 3), tags={256: (SHORT, [])}), id="without-width"),
    ],
)
def test_later_pages_do_not_matter(second: Tiff) -> None:
    body = two_pages(second)
    np.testing.assert_array_equal(decode_image(body, 2 * 81), noise(9, 9, 3))
    with pytest.raises(RequestError, match="9x9 in 2 frames"):
        decode_image(body, 2 * 81 - 1)


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("rows", [1, 4, 11])
def test_planes_without_compression_are_interleaved(order: Any, bits: int, rows: int) -> None:
    samples = samples_of(tiffs.RGB, bits, ())
    tiff = Tiff(samples, bits=bits, planar=2, order=order, rows_per_strip=rows)
    np.testing.assert_allclose(decode_image(tiff.encode(), MAX_PIXELS), pixels_of(tiff), atol=1)


def test_bigtiff_is_read() -> None:
    body = image_bytes(noise(9, 9, 3), "TIFF", big_tiff=True)
    assert body.startswith(b"II+\0")
    np.testing.assert_array_equal(decode_image(body, MAX_PIXELS), noise(9, 9, 3))
