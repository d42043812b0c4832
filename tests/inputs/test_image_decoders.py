"""torchvision and Pillow decode the same pixels."""

import io
from base64 import b85decode
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d2serve.errors import RequestError
from d2serve.inputs.images import decode_image, decode_with_pillow, is_for_torchvision
from d2serve.inputs.jpeg_decoders import decode_on_cpu
from tests.bodies import image_bytes

MAX_PIXELS = 50_000_000
# Different builds of libjpeg may round differently.
ROUNDING = 2


def smooth(height: int, width: int) -> "np.ndarray[Any, Any]":
    """UInt8[height, width, 3] RGB gradients with little JPEG loss."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = (rows * 3, columns * 2, rows + columns)
    return np.stack([(wave % 256) // 2 + 60 for wave in waves], axis=2).astype(np.uint8)


RGB = Image.fromarray(smooth(61, 83))
JPEGS: dict[str, tuple[Image.Image, dict[str, Any]]] = {
    "L": (RGB.convert("L"), {}),
    "RGB": (RGB, {}),
    "4:4:4": (RGB, {"subsampling": 0}),
    "4:2:2": (RGB, {"subsampling": 1}),
    "4:2:0": (RGB, {"subsampling": 2}),
    "progressive": (RGB, {"progressive": True}),
    "progressive-L": (RGB.convert("L"), {"progressive": True}),
    "optimized": (RGB, {"optimize": True}),
    "quality-100": (RGB, {"quality": 100}),
    "restart-markers": (RGB, {"restart_marker_blocks": 2}),
    "keep-rgb": (RGB, {"keep_rgb": True}),
    "one-pixel": (RGB.crop((0, 0, 1, 1)), {}),
}


@pytest.mark.parametrize("name", JPEGS)
def test_torchvision_and_pillow_decode_the_same_pixels(name: str) -> None:
    image, options = JPEGS[name]
    body = image_bytes(image, "JPEG", **options)
    fast = decode_on_cpu(body)
    slow = decode_with_pillow(Image.open(io.BytesIO(body)))
    assert fast.dtype == slow.dtype == np.uint8
    assert fast.shape == slow.shape == (image.height, image.width, 3)
    assert np.abs(fast.astype(int) - slow).max() <= ROUNDING
    np.testing.assert_allclose(fast, np.asarray(image.convert("RGB")), atol=40)


# torchvision would decode CMYK without Adobe's inversion.
MODES: dict[str, tuple[Callable[[Image.Image], Image.Image], str, int]] = {
    "L": (lambda image: image.convert("L"), "PNG", 0),
    "LA": (lambda image: image.convert("LA"), "PNG", 0),
    "P": (lambda image: image.quantize(200), "PNG", 0),
    "RGB": (lambda image: image, "PNG", 0),
    "RGBA": (lambda image: image.convert("RGBA"), "PNG", 0),
    "1": (lambda image: image.convert("1"), "PNG", 0),
    "CMYK": (lambda image: image.convert("CMYK"), "JPEG", 12),
    "CMYK-TIFF": (lambda image: image.convert("CMYK"), "TIFF", 0),
}


@pytest.mark.parametrize("mode", MODES)
def test_all_modes_decode_to_rgb(mode: str) -> None:
    convert, file_format, atol = MODES[mode]
    image = convert(RGB)
    expected = np.asarray(image.convert("RGB"))
    options = {"quality": 95} if file_format == "JPEG" else {}
    decoded = decode_image(image_bytes(image, file_format, **options), MAX_PIXELS)
    np.testing.assert_allclose(decoded, expected, atol=atol)


def test_transparency_of_palettes_is_dropped() -> None:
    image = RGB.quantize(100)
    body = image_bytes(image, "PNG", transparency=bytes(range(100)))
    np.testing.assert_array_equal(decode_image(body, MAX_PIXELS), np.asarray(image.convert("RGB")))


def test_inverted_ycck_is_decoded() -> None:
    """Adobe's inverted YCCK, as Photoshop writes it: a CMYK JPEG with a changed marker."""
    body = image_bytes(RGB.convert("CMYK"), "JPEG", quality=95)
    marker = body.index(b"Adobe")
    assert body[marker + 11] in (0, 2)
    ycck = body[: marker + 11] + b"\x02" + body[marker + 12 :]
    with Image.open(io.BytesIO(ycck)) as opened:
        assert opened.mode == "CMYK"
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(decode_image(ycck, MAX_PIXELS), expected)


@pytest.mark.parametrize(
    ("mode", "file_format", "expected"),
    [
        ("L", "JPEG", True),
        ("RGB", "JPEG", True),
        ("RGB", "MPO", True),
        ("CMYK", "JPEG", False),
        ("L", "PNG", False),
        ("RGB", "PNG", False),
        ("RGB", "WEBP", False),
    ],
)
def test_torchvision_decodes_only_gray_and_rgb_jpegs(
    mode: str, file_format: str, expected: bool
) -> None:
    options = {"save_all": True, "append_images": [RGB]} if file_format == "MPO" else {}
    body = image_bytes(RGB.convert(mode), file_format, **options)
    assert is_for_torchvision(Image.open(io.BytesIO(body))) is expected


# 32 x 24 pixels with arithmetic coding, written by libjpeg-turbo 2.1; Pillow cannot write it.
ARITHMETIC = b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00jdC1Ox*G1Ox;H1qB8N3<w7Y2L}%e3keJn4-yg)4-pX)791B76dDx"
    "~5f~vD8XX-UA0HDJA|xUnBpe<e9{<|_LjeT^1qTKP4hRSi9uyH29v&VZ9v&VZ9v&VZ9v&VZ9v&VZ9v&VZ9v&"
    "VZ9v&VZ9v&VZ9v&VZ9v&VZ9v&VZ9v=V601*fP7yuvx0TBQK5di}c0sqVZ3IGrg1pyEd1^?Or3<CiG0ucid06"
    "zf#0NYZh7!e+fpGWc+2|MaQLBwnDn>x4)Z>9kBahaXp!g-f2gVX^BYiIl+F>Hp;N*|B3s>Vhx2x`HwdSLd@P"
    "P`Pu-P?N3Ob3!JRG9`~|Je"
)


def test_arithmetic_coding_is_decoded() -> None:
    ramp = np.mgrid[0:24, 0:32].sum(axis=0)[:, :, None]
    shown = ramp * [3, 2, 1] % 200 + 20
    np.testing.assert_allclose(decode_image(ARITHMETIC, MAX_PIXELS), shown, atol=4)
    slow = decode_with_pillow(Image.open(io.BytesIO(ARITHMETIC)))
    np.testing.assert_allclose(decode_on_cpu(ARITHMETIC), slow, atol=ROUNDING)


TRUNCATED = {
    name: image_bytes(image, "JPEG", **options)
    for name, (image, options) in JPEGS.items()
    if name in ("L", "RGB", "progressive")
}


@pytest.mark.parametrize("name", TRUNCATED)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.97])
def test_truncated_jpeg_is_a_400(name: str, share: float) -> None:
    body = TRUNCATED[name]
    with pytest.raises(RequestError) as raised:
        decode_image(body[: int(len(body) * share)], MAX_PIXELS)
    assert raised.value.status == 400


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_trailing_bytes_are_ignored(file_format: str) -> None:
    body = image_bytes(RGB, file_format)
    expected = decode_image(body, MAX_PIXELS)
    for garbage in (b"\0" * 100, b"\xff\xd8\xff" * 50, b"<html>"):
        np.testing.assert_array_equal(decode_image(body + garbage, MAX_PIXELS), expected)


def test_decoded_images_are_c_contiguous() -> None:
    exif = Image.Exif()
    exif[0x0112] = 5
    for body in (image_bytes(RGB, "JPEG"), image_bytes(RGB, "JPEG", exif=exif)):
        assert decode_image(body, MAX_PIXELS).flags["C_CONTIGUOUS"]
