import json
from typing import Any

import pytest

from d2serve.outputs.result import json_bytes, json_text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param({}, b"{}", id="empty"),
        pytest.param({"a": [1, 2.5, None]}, b'{"a":[1,2.5,null]}', id="without-spaces"),
        pytest.param("grüner Ball", '"grüner Ball"'.encode(), id="letters-as-they-are"),
        pytest.param('a"\\\n', rb'"a\"\\\n"', id="escaped"),
        pytest.param("\U0001f40e", '"\U0001f40e"'.encode(), id="beyond-16-bits"),
        pytest.param("a\ud800b", rb'"a\ud800b"', id="half-of-a-surrogate-pair"),
    ],
)
def test_json_is_compact_utf_8(content: Any, expected: bytes) -> None:
    body = json_bytes(content)
    assert body == expected
    assert json.loads(body) == content


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_json_cannot_say_is_not_written(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_text([number])
