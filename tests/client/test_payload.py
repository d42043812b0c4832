"""Payloads of all kinds of images."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2serve.client.transport import ImageInput, Payload
from d2serve.inputs.images import decode_opened
from tests.bodies import noise, npy_bytes

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(b"bytes")
    return path


@pytest.mark.parametrize("kind", ["file", "bytes", "array"])
def test_payload_of_an_image(kind: str, file: Path) -> None:
    images: dict[str, ImageInput] = {"file": file, "bytes": b"bytes", "array": ARRAY}
    types = {"file": "image/png", "bytes": "application/octet-stream", "array": "application/x-npy"}
    body = npy_bytes(ARRAY) if kind == "array" else b"bytes"
    payload = Payload.of(images[kind], "image/jpeg", masks="none")
    assert payload == Payload(body, types[kind], "image/jpeg", {"masks": "none"})
    assert payload.custom_attributes == '{"masks": "none"}'


def test_no_options_no_custom_attributes() -> None:
    assert Payload(b"bytes").custom_attributes == ""


def test_an_array_of_objects_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        Payload.of(np.array([object()]))


ORIENTATION = 274  # of EXIF; 6 is a quarter turn


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"]
)
def test_pil_image_keeps_its_pixels_and_orientation(mode: str) -> None:
    image = Image.fromarray(noise(5, 7, 3))
    for step in ("RGBA", mode) if mode == "RGBa" else (mode,):
        image = image.convert(step)
    image.getexif()[ORIENTATION] = 6
    sent = Image.open(BytesIO(Payload.of(image).body))
    received = decode_opened(sent)
    assert received.shape == (7, 5, 3)
    np.testing.assert_array_equal(received, decode_opened(image))
