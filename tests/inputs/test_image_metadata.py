"""Metadata never refuse an image, and change nothing but its orientation."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from d2serve.inputs.images import decode_image, decode_opened
from tests.bad_requests import png_chunk
from tests.bodies import image_bytes
from tests.inputs.metadata_blocks import (
    FILES,
    PLAIN,
    RGB,
    TURNED,
    XMP_HEADER,
    jpeg_with,
    png_with,
    riff_chunk,
    segment,
    upright,
    webp_with,
)
from tests.inputs.tiffs import SHORT, UNDEFINED, Tiff

MAX_PIXELS = 10_000
CASES = [
    pytest.param(file_format, body, id=f"{file_format}-{name}")
    for file_format, files in FILES.items()
    for name, body in files.items()
]
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
RAW_PROFILE = f"\nexif\n{len(TURNED)}\n{TURNED.hex()}".encode()
ORIENTED = {
    "jpeg-exif": ("JPEG", jpeg_with(segment(0xE1, b"Exif\0\0" + TURNED))),
    "jpeg-exif-twice-in-its-header": (
        "JPEG",
        jpeg_with(segment(0xE1, b"Exif\0\0Exif\0\0" + TURNED)),
    ),
    "jpeg-exif-in-two-segments": (
        "JPEG",
        jpeg_with(segment(0xE1, b"Exif\0\0" + TURNED[:9]), segment(0xE1, b"Exif\0\0" + TURNED[9:])),
    ),
    "jpeg-exif-beside-damaged-xmp": (
        "JPEG",
        jpeg_with(segment(0xE1, XMP_HEADER + b"\xff"), segment(0xE1, b"Exif\0\0" + TURNED)),
    ),
    "jpeg-xmp": ("JPEG", jpeg_with(segment(0xE1, XMP_HEADER + XMP))),
    "png-exif": ("PNG", png_with(png_chunk(b"eXIf", TURNED))),
    "png-exif-after-the-pixels": ("PNG", png_with(png_chunk(b"eXIf", TURNED), after_pixels=True)),
    "png-xmp": ("PNG", png_with(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP))),
    "png-deflated-xmp": (
        "PNG",
        png_with(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP))),
    ),
    "png-raw-profile": (
        "PNG",
        png_with(png_chunk(b"tEXt", b"Raw profile type exif\0" + RAW_PROFILE)),
    ),
    "png-deflated-raw-profile": (
        "PNG",
        png_with(
            png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(RAW_PROFILE)),
            after_pixels=True,
        ),
    ),
    "webp-exif": ("WEBP", webp_with(0x08, riff_chunk(b"EXIF", TURNED))),
    "webp-exif-with-a-header": ("WEBP", webp_with(0x08, riff_chunk(b"EXIF", b"Exif\0\0" + TURNED))),
    "webp-xmp": ("WEBP", webp_with(0x04, riff_chunk(b"XMP ", XMP))),
    "tiff-tag": ("TIFF", Tiff(RGB, tags={274: (SHORT, [6])}).encode()),
    "tiff-xmp": ("TIFF", Tiff(RGB, tags={700: (UNDEFINED, XMP)}).encode()),
}


@pytest.mark.parametrize(("file_format", "body"), CASES)
def test_metadata_do_not_change_the_pixels(file_format: str, body: bytes) -> None:
    expected = decode_image(PLAIN[file_format], MAX_PIXELS)
    np.testing.assert_array_equal(decode_image(body, MAX_PIXELS), expected)


@pytest.mark.parametrize("name", ORIENTED)
def test_orientation_in_metadata_is_applied(name: str) -> None:
    file_format, body = ORIENTED[name]
    expected = decode_image(PLAIN[file_format], MAX_PIXELS)
    np.testing.assert_array_equal(decode_image(body, MAX_PIXELS), upright(expected))


@pytest.mark.parametrize("name", [name for name, (kind, _) in ORIENTED.items() if kind != "TIFF"])
def test_pillow_finds_the_same_orientation(name: str) -> None:
    _, body = ORIENTED[name]
    with Image.open(io.BytesIO(body)) as image:
        assert image.getexif().get(0x0112) == 6


TRANSPARENT = {
    "rgb": image_bytes(RGB, "PNG", transparency=tuple(RGB[3, 4].tolist())),
    "grey": image_bytes(RGB[:, :, 0].copy(), "PNG", transparency=int(RGB[3, 4, 0])),
    "palette": image_bytes(Image.fromarray(RGB).quantize(16), "PNG", transparency=bytes(range(9))),
    "gif": image_bytes(Image.fromarray(RGB).quantize(16), "GIF", transparency=3),
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparency_is_kept_on_request(name: str) -> None:
    with Image.open(io.BytesIO(TRANSPARENT[name])) as image:
        expected = np.asarray(image.convert("RGBA"))
    assert expected[:, :, 3].min() < 255
    found = decode_image(TRANSPARENT[name], MAX_PIXELS, keep_alpha=True)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["transparency-short", "transparency-long"])
def test_damaged_transparency_is_not_kept(name: str) -> None:
    found = decode_image(FILES["PNG"][name], MAX_PIXELS, keep_alpha=True)
    np.testing.assert_array_equal(found, RGB)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", ["garbage", "header-only", "other-version", "many-entries"])
def test_damaged_exif_of_an_opened_image_is_ignored(file_format: str, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(FILES[file_format][f"exif-{name}"])) as image:
            pixels = decode_opened(image)
    expected = decode_image(PLAIN[file_format], MAX_PIXELS)
    assert np.abs(pixels.astype(int) - expected).max() <= 2


def test_truncated_pixels_before_metadata_are_an_error() -> None:
    body = webp_with(0x08, riff_chunk(b"EXIF", TURNED))
    at = body.index(b"VP8L")
    (size,) = struct.unpack_from("<I", body, at + 4)
    longer = body[: at + 4] + struct.pack("<I", size + 2_000) + body[at + 8 :]
    with pytest.raises(Exception, match="truncated or damaged"):
        decode_image(longer, MAX_PIXELS)
