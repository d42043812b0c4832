"""Payloads of all kinds of images."""

from pathlib import Path

import numpy as np
import pytest

from d2serve.client.transport import ImageInput, Payload
from tests.bodies import npy_bytes

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
