import json

import numpy as np
import pytest

from bench.load.requests import MARK
from bench.soak.expected import Detected, Drawn, Marked, Refused, error_code
from bench.soak.found import TO_ANSWER, Found, read_tensors
from tests.bodies import image_bytes, noise

NOTHING = Found.of([], [], [], None)
DETECTED = Detected(read_tensors, (8, 8), NOTHING, TO_ANSWER)
TENSORS: list[dict[str, object]] = [
    {"name": name, "data": []} for name in ("boxes", "scores", "classes")
]


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize("broken", [b"", b"[]", b"{}", b'{"outputs": 7}', b"\xff"])
def test_what_cannot_be_read_is_a_fault(broken: bytes) -> None:
    assert DETECTED.fault(broken).startswith("unreadable: ")
    assert DETECTED.fault(body(outputs=TENSORS)) == ""


def test_an_answer_with_anothers_id_is_told() -> None:
    expected = Marked(DETECTED)
    assert expected.fault(body(id=MARK.decode(), outputs=TENSORS)) == ""
    assert expected.fault(body(id="b", outputs=TENSORS)) == "the answer to another request"
    assert expected.fault(body(outputs=TENSORS)) == "the answer to another request"
    assert expected.fault(body(id=MARK.decode(), outputs=[])).startswith("unreadable: ")


def test_a_drawn_picture_has_the_same_pixels_but_for_a_few() -> None:
    picture = noise(64, 64, 3)
    drawn = Drawn(image_bytes(picture, "PNG"))
    assert drawn.fault(image_bytes(picture, "PNG", compress_level=1)) == ""
    few, many = picture.copy(), picture.copy()
    few[0, :16] ^= 0x80
    many[0, :32] ^= 0x80
    assert drawn.fault(image_bytes(few, "PNG")) == ""
    assert drawn.fault(image_bytes(many, "PNG")) == "0.8% of the pixels differ"
    assert "in place of" in drawn.fault(image_bytes(picture[1:], "PNG"))
    assert drawn.fault(b"none").startswith("no picture")
    assert drawn.fault(image_bytes(np.zeros_like(picture), "PNG"))


def test_an_error_is_known_by_its_code_in_the_contracts_form() -> None:
    good = {"code": "too_large", "message": "a", "hint": "b"}
    expected = Refused(413, "too_large")
    assert expected.fault(body(error=good)) == ""
    for wrong in (good | {"code": "internal"}, good | {"hint": ""}, good | {"more": 1}, "text"):
        assert expected.fault(body(error=wrong))
    assert error_code(b"[]") == error_code(b"no JSON") == error_code(body(code=500)) == ""
