"""Files of other formats: a 415 that names what was received."""

import base64
import gzip
import io
import pickle

import numpy as np
import pytest

from d2serve.errors import RequestError
from d2serve.inputs.images import FORMATS, decode_image
from d2serve.inputs.npy import read_npy
from tests.bodies import image_bytes, noise

MAX_PIXELS = 1_000_000
RGB = noise(12, 16, 3)
JPEG, PNG = image_bytes(RGB, "JPEG"), image_bytes(RGB, "PNG")


def npz_bytes() -> bytes:
    file = io.BytesIO()
    np.savez(file, image=RGB)
    return file.getvalue()


def iso_media(brand: bytes, *compatible: bytes) -> bytes:
    """A box with the brands of a file, as cameras and video encoders write it."""
    content = b"ftyp" + brand + bytes(4) + b"".join(compatible)
    return (len(content) + 4).to_bytes(4, "big") + content + bytes(200)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(iso_media(b"heic", b"mif1", b"heic"), "HEIC", id="iphone"),
        pytest.param(iso_media(b"mif1", b"heic"), "HEIC", id="android"),
        pytest.param(iso_media(b"hevc", b"msf1"), "HEIC", id="image-sequence"),
        pytest.param(iso_media(b"avif", b"mif1"), "AVIF", id="avif"),
        pytest.param(iso_media(b"mif1", b"avif", b"miaf"), "AVIF", id="avif-by-its-second-brand"),
        pytest.param(iso_media(b"crx ", b"isom"), "Canon CR3", id="camera-raw"),
        pytest.param(iso_media(b"isom", b"mp42"), "video", id="mp4"),
        pytest.param(iso_media(b"qt  "), "video", id="quicktime"),
        pytest.param(b"\x1aE\xdf\xa3" + bytes(99), "video", id="webm"),
        pytest.param(b"RIFF\x10\0\0\0AVI LIST" + bytes(99), "video", id="avi"),
        pytest.param(b"\xff\x0a" + bytes(99), "JPEG XL", id="jpeg-xl-codestream"),
        pytest.param(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "JPEG XL", id="jpeg-xl"),
        pytest.param(image_bytes(RGB, "JPEG2000"), "JPEG 2000", id="jpeg-2000"),
        pytest.param(image_bytes(RGB, "PPM"), "Netpbm", id="ppm"),
        pytest.param(image_bytes(RGB, "ICO"), "icon", id="ico"),
        pytest.param(b"8BPS\0\1" + bytes(60), "Photoshop", id="psd"),
        pytest.param(b"%PDF-1.7\n", "PDF", id="pdf"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG", id="svg"),
        pytest.param(b"<?xml version='1.0'?>\n<svg/>", "XML", id="xml"),
        pytest.param(b"\n<!DOCTYPE html><html>", "HTML", id="html"),
        pytest.param(gzip.compress(JPEG), "gzip", id="gzip"),
        pytest.param(npz_bytes(), "ZIP", id="npz"),
        pytest.param(pickle.dumps(RGB), "pickle", id="pickle"),
        pytest.param(bytes(128) + b"DICM" + bytes(99), "DICOM", id="dicom"),
        pytest.param(base64.b64encode(JPEG), "base64", id="base64-of-a-jpeg"),
        pytest.param(base64.encodebytes(PNG), "base64", id="base64-of-a-png"),
        pytest.param(b"data:image/png;base64," + base64.b64encode(PNG), "base64", id="data-uri"),
        pytest.param(b"image=" + base64.b64encode(JPEG), "HTML form", id="field-of-a-form"),
    ],
)
def test_known_format_is_named(body: bytes, kind: str) -> None:
    with pytest.raises(RequestError) as raised:
        decode_image(body, MAX_PIXELS)
    assert raised.value.status == 415
    assert kind in raised.value.message
    assert all(name in raised.value.hint for name in FORMATS)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"any text", id="text"),
        pytest.param(RGB.tobytes(), id="raw-pixels"),
        pytest.param(b"\0\0\0\x14ftyp", id="truncated-brand"),
        pytest.param(b"\x80\x09abc", id="no-pickle"),
    ],
)
def test_unknown_bytes_are_not_named(body: bytes) -> None:
    with pytest.raises(RequestError, match="match no supported image format") as raised:
        decode_image(body, MAX_PIXELS)
    assert raised.value.status == 415


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(npz_bytes(), "ZIP", id="npz"),
        pytest.param(pickle.dumps(RGB), "pickle", id="pickle"),
        pytest.param(base64.b64encode(JPEG), "base64", id="base64"),
    ],
)
def test_other_file_sent_as_npy_is_named(body: bytes, kind: str) -> None:
    with pytest.raises(RequestError, match="not an NPY file") as raised:
        read_npy(body)
    assert raised.value.status == 400
    assert kind in raised.value.message
