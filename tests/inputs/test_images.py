import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from d2serve.errors import RequestError
from d2serve.inputs.images import decode_image
from tests.bodies import image_bytes, noise

MAX_PIXELS = 10_000
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
ORIENTATION = 0x0112

RGB = noise(12, 17, 3)
GRAY = noise(12, 17)


def smooth(height: int, width: int) -> npt.NDArray[np.uint8]:
    """UInt8[height, width, 3] gradients with little JPEG loss."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack((rows * 4, columns * 4, rows + columns), axis=2).astype(np.uint8)


def palette(image: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(image).quantize(16)


def with_alpha(array: npt.NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(array)
    image.putalpha(Image.fromarray(noise(*array.shape[:2], seed=5)))
    return image


def image_or_status(body: bytes) -> npt.NDArray[np.uint8] | int:
    try:
        return decode_image(body, MAX_PIXELS)
    except RequestError as error:
        return error.status


def as_rgb(gray: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.repeat(gray[:, :, None], 3, axis=2)


BLACK_AND_WHITE = (GRAY > 127).astype(np.uint8) * np.uint8(255)
PALETTE_RGB = np.array(palette(RGB).convert("RGB"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(image_bytes(RGB[:1, :1], "PNG"), RGB[:1, :1], id="one-pixel"),
        pytest.param(image_bytes(RGB, "PNG"), RGB, id="rgb-png"),
        pytest.param(image_bytes(RGB, "BMP"), RGB, id="rgb-bmp"),
        pytest.param(image_bytes(RGB, "TIFF"), RGB, id="rgb-tiff"),
        pytest.param(image_bytes(RGB, "TIFF", compression="tiff_lzw"), RGB, id="rgb-tiff-lzw"),
        pytest.param(image_bytes(RGB, "WEBP", lossless=True), RGB, id="rgb-webp-lossless"),
        pytest.param(image_bytes(GRAY, "PNG"), as_rgb(GRAY), id="gray-png"),
        pytest.param(image_bytes(GRAY, "GIF"), as_rgb(GRAY), id="gray-gif"),
        pytest.param(
            image_bytes(GRAY, "PNG", transparency=7), as_rgb(GRAY), id="gray-png-transparent-value"
        ),
        pytest.param(image_bytes(with_alpha(GRAY), "PNG"), as_rgb(GRAY), id="gray-alpha-png"),
        pytest.param(image_bytes(with_alpha(RGB), "PNG"), RGB, id="rgba-png"),
        pytest.param(image_bytes(with_alpha(RGB), "TIFF"), RGB, id="rgba-tiff"),
        pytest.param(
            image_bytes(with_alpha(RGB), "WEBP", lossless=True, exact=True), RGB, id="rgba-webp"
        ),
        pytest.param(
            image_bytes(RGB, "PNG", transparency=(1, 2, 3)), RGB, id="rgb-png-transparent-color"
        ),
        pytest.param(image_bytes(palette(RGB), "PNG"), PALETTE_RGB, id="palette-png"),
        pytest.param(
            image_bytes(palette(RGB), "PNG", transparency=3),
            PALETTE_RGB,
            id="palette-png-one-transparent",
        ),
        pytest.param(
            image_bytes(palette(RGB), "PNG", transparency=bytes(range(16))),
            PALETTE_RGB,
            id="palette-png-transparency-of-each",
        ),
        pytest.param(image_bytes(palette(RGB), "GIF"), PALETTE_RGB, id="palette-gif"),
        pytest.param(
            image_bytes(palette(RGB), "GIF", transparency=3),
            PALETTE_RGB,
            id="palette-gif-transparent",
        ),
        pytest.param(
            image_bytes(Image.fromarray(GRAY > 127), "PNG"), as_rgb(BLACK_AND_WHITE), id="1-bit-png"
        ),
        pytest.param(
            image_bytes(Image.fromarray(GRAY > 127), "TIFF", compression="group4"),
            as_rgb(BLACK_AND_WHITE),
            id="1-bit-fax-tiff",
        ),
    ],
)
def test_lossless_images_decode_to_exact_rgb(body: bytes, expected: npt.NDArray[np.uint8]) -> None:
    decoded = decode_image(body, MAX_PIXELS)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        pytest.param("RGB", {}, id="baseline"),
        pytest.param("RGB", {"progressive": True}, id="progressive"),
        pytest.param("RGB", {"optimize": True, "subsampling": 0}, id="no-subsampling"),
        pytest.param("CMYK", {}, id="cmyk"),
        pytest.param("YCbCr", {}, id="ycbcr"),
    ],
)
def test_jpegs_decode_to_approximate_rgb(mode: str, options: dict[str, Any]) -> None:
    image = smooth(40, 48)
    body = image_bytes(Image.fromarray(image).convert(mode), "JPEG", quality=98, **options)
    decoded = decode_image(body, MAX_PIXELS)
    assert decoded.shape == image.shape
    assert np.abs(decoded.astype(int) - image).max() <= 8


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(0, 0, id="black"),
        pytest.param(128, 0, id="under-half-a-step"),
        pytest.param(129, 1, id="over-half-a-step"),
        pytest.param(257, 1, id="one-step"),
        pytest.param(100 * 257 + 128, 100, id="rounded-down"),
        pytest.param(100 * 257 + 129, 101, id="rounded-up"),
        pytest.param(65535, 255, id="white"),
    ],
)
def test_16_bit_values_are_scaled_to_8_bits(file_format: str, value: int, expected: int) -> None:
    gray = np.array([[value, 65535 - value]], dtype=np.uint16)
    decoded = decode_image(image_bytes(gray, file_format), MAX_PIXELS)
    assert decoded[0, 0].tolist() == [expected] * 3
    assert decoded[0, 1].tolist() == [255 - expected] * 3


UPRIGHT = smooth(10, 16)
LOW_LOSS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 98, "subsampling": 0},
    "WEBP": {"lossless": True},
}


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        pytest.param(None, UPRIGHT, id="no-orientation"),
        pytest.param(1, UPRIGHT, id="1-upright"),
        pytest.param(2, UPRIGHT[:, ::-1], id="2-mirrored"),
        pytest.param(3, UPRIGHT[::-1, ::-1], id="3-upside-down"),
        pytest.param(4, UPRIGHT[::-1], id="4-mirrored-upside-down"),
        pytest.param(5, UPRIGHT.transpose(1, 0, 2), id="5-transposed"),
        pytest.param(6, np.rot90(UPRIGHT, 1), id="6-rotate-right"),
        pytest.param(7, UPRIGHT[::-1, ::-1].transpose(1, 0, 2), id="7-transversed"),
        pytest.param(8, np.rot90(UPRIGHT, -1), id="8-rotate-left"),
        pytest.param(9, UPRIGHT, id="9-unknown"),
    ],
)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(
    file_format: str, orientation: int | None, stored: npt.NDArray[np.uint8]
) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    options = LOW_LOSS.get(file_format, {})
    body = image_bytes(np.ascontiguousarray(stored), file_format, exif=exif, **options)
    decoded = decode_image(body, MAX_PIXELS)
    assert decoded.shape == UPRIGHT.shape
    assert np.abs(decoded.astype(int) - UPRIGHT).max() <= (8 if file_format == "JPEG" else 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_corrupt_exif_data_is_ignored() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff"
    body = image_bytes(UPRIGHT, "JPEG", quality=98, subsampling=0, exif=exif)
    assert np.abs(decode_image(body, MAX_PIXELS).astype(int) - UPRIGHT).max() <= 8


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation_is_decoded(file_format: str) -> None:
    frames = [Image.new("RGB", (17, 12), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    body = image_bytes(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(body)).n_frames == 3  # type: ignore[attr-defined]
    np.testing.assert_array_equal(decode_image(body, MAX_PIXELS), np.full((12, 17, 3), (255, 0, 0)))


def test_decoded_image_is_writable() -> None:
    decoded = decode_image(image_bytes(RGB, "PNG"), MAX_PIXELS)
    decoded[0, 0] = 1
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize(
    ("array", "file_format"),
    [
        pytest.param(np.zeros((3, 3), dtype=np.int32), "TIFF", id="integers"),
        pytest.param(np.zeros((3, 3), dtype=np.float32), "TIFF", id="floats"),
    ],
)
def test_32_bits_per_channel_is_a_422(array: npt.NDArray[Any], file_format: str) -> None:
    with pytest.raises(RequestError) as raised:
        decode_image(image_bytes(array, file_format), MAX_PIXELS)
    assert (raised.value.status, raised.value.code) == (422, "unprocessable")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x00", id="one-byte"),
        pytest.param(b"not an image at all, but some text", id="text"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="svg"),
        pytest.param(b"%PDF-1.7\n", id="pdf"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", id="postscript"),
        pytest.param(RGB.tobytes(), id="raw-pixels"),
        pytest.param(image_bytes(RGB, "PPM"), id="unsupported-ppm"),
        pytest.param(image_bytes(RGB, "ICO"), id="unsupported-ico"),
    ],
)
def test_unknown_format_is_a_415_that_lists_the_formats(body: bytes) -> None:
    with pytest.raises(RequestError) as raised:
        decode_image(body, MAX_PIXELS)
    assert (raised.value.status, raised.value.code) == (415, "unsupported_media_type")
    for file_format in FORMATS:
        assert file_format in raised.value.hint


@pytest.mark.parametrize("action", ["error", "ignore"], ids=["in-tests", "in-production"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_truncated_image_is_an_error_or_complete(
    file_format: str, action: Literal["error", "ignore"]
) -> None:
    body = image_bytes(RGB, file_format)
    whole = decode_image(body, MAX_PIXELS)
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        outcomes = [image_or_status(body[:length]) for length in range(len(body))]
    statuses = [outcome for outcome in outcomes if isinstance(outcome, int)]
    assert set(statuses) == {400, 415}
    assert len(statuses) > 0.9 * len(body)
    for outcome in outcomes:
        if not isinstance(outcome, int):  # the last bytes of some formats hold no pixels
            np.testing.assert_array_equal(outcome, whole)


@pytest.mark.parametrize("file_format", FORMATS)
def test_image_truncated_in_its_pixels_is_a_400(file_format: str) -> None:
    body = image_bytes(noise(64, 64, 3), file_format)
    with pytest.raises(RequestError) as raised:
        decode_image(body[: len(body) * 3 // 4], MAX_PIXELS)
    assert (raised.value.status, raised.value.code) == (400, "bad_request")


def test_png_with_noncontiguous_data_chunks_is_a_400() -> None:
    body = bytearray(image_bytes(noise(9, 11, 3), "PNG"))
    assert body[37:41] == b"IDAT"
    body[36] -= 22  # the last byte of the chunk's length
    with pytest.raises(RequestError) as raised:
        decode_image(bytes(body), MAX_PIXELS)
    assert (raised.value.status, raised.value.code) == (400, "bad_request")


@pytest.mark.parametrize("file_format", FORMATS)
def test_damaged_bytes_give_an_image_or_a_request_error(file_format: str) -> None:
    body = image_bytes(noise(9, 11, 3), file_format)
    generator = np.random.default_rng(3)
    statuses = set()
    for _ in range(400):
        damaged = bytearray(body)
        for position in generator.integers(0, len(body), 3):
            damaged[position] = generator.integers(0, 256)
        outcome = image_or_status(bytes(damaged))
        if isinstance(outcome, int):
            statuses.add(outcome)
        else:
            assert outcome.dtype == np.uint8
            assert outcome.ndim == 3
            assert outcome.shape[2] == 3
            assert 0 < outcome.shape[0] * outcome.shape[1] <= MAX_PIXELS
    assert statuses
    assert statuses <= {400, 413, 415, 422}


@pytest.mark.parametrize(
    ("size_hw", "max_pixels"),
    [
        pytest.param((1, 1), 1, id="one-pixel"),
        pytest.param((30, 40), 1200, id="as-many-as-allowed"),
        pytest.param((1200, 1), 1200, id="long-and-thin"),
    ],
)
def test_image_at_the_pixel_limit_is_decoded(size_hw: tuple[int, int], max_pixels: int) -> None:
    body = image_bytes(noise(*size_hw, 3), "PNG")
    assert decode_image(body, max_pixels).shape == (*size_hw, 3)


@pytest.mark.parametrize("file_format", FORMATS)
def test_image_over_the_pixel_limit_is_a_413_with_size_and_limit(file_format: str) -> None:
    with pytest.raises(RequestError, match=r"40x30.*1199") as raised:
        decode_image(image_bytes(noise(30, 40, 3), file_format), 1199)
    assert (raised.value.status, raised.value.code) == (413, "too_large")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of under 100 bytes whose header claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def bmp_claiming(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info


def gif_claiming(width: int, height: int) -> bytes:
    size = struct.pack("<HH", width, height)
    return b"GIF89a" + size + b"\x00\x00\x00," + bytes(4) + size + b"\x00\x02\x00;"


@pytest.mark.parametrize("action", ["error", "ignore"], ids=["in-tests", "in-production"])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(png_claiming(8000, 8000), id="png-64-million"),
        pytest.param(png_claiming(10_000, 10_000), id="png-100-million-where-pillow-warns"),
        pytest.param(png_claiming(20_000, 20_000), id="png-400-million-where-pillow-raises"),
        pytest.param(png_claiming(2**31 - 1, 2**31 - 1), id="png-largest-possible-size"),
        pytest.param(bmp_claiming(10_000, 10_000), id="bmp-100-million"),
        pytest.param(bmp_claiming(2**31 - 1, 2**31 - 1), id="bmp-largest-possible-size"),
        pytest.param(gif_claiming(10_000, 10_000), id="gif-100-million"),
        pytest.param(gif_claiming(65_535, 65_535), id="gif-largest-possible-size"),
    ],
)
def test_huge_size_in_the_header_is_a_413(body: bytes, action: Literal["error", "ignore"]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(RequestError) as raised:
            decode_image(body, 50_000_000)
    assert len(body) < 100
    assert (raised.value.status, raised.value.code) == (413, "too_large")


@pytest.mark.parametrize(
    ("width", "height"), [(0, 0), (0, 5), (5, 0)], ids=["no-pixels", "no-width", "no-height"]
)
def test_image_without_pixels_is_an_error(width: int, height: int) -> None:
    for body in (png_claiming(width, height), bmp_claiming(width, height)):
        with pytest.raises(RequestError) as raised:
            decode_image(body, MAX_PIXELS)
        assert raised.value.status in (400, 415)


def test_errors_contain_neither_paths_nor_payload() -> None:
    bodies: Sequence[bytes] = (
        b"secret words",
        image_bytes(RGB, "PNG")[:100],
        png_claiming(9**5, 9**5),
    )
    for body in bodies:
        with pytest.raises(RequestError) as raised:
            decode_image(body, MAX_PIXELS)
        text = str(raised.value.body())
        assert "secret" not in text
        assert "/" not in text
        assert "0x" not in text


@pytest.mark.parametrize("file_format", FORMATS)
def test_image_truncated_in_its_header_is_a_400(file_format: str) -> None:
    with pytest.raises(RequestError) as raised:
        decode_image(image_bytes(RGB, file_format)[:8], MAX_PIXELS)
    assert (raised.value.status, raised.value.code) == (400, "bad_request")
