import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from d2serve.errors import RequestError
from d2serve.outputs.formats import FORMATS, Format
from d2serve.outputs.response import instances_body, lines_body, plain_body
from d2serve.outputs.result import Result
from tests.outputs.results import BROKEN, MODEL, NOTHING, TWO, parsed, result_of

ERROR = BROKEN.body()
# What a format's function says of a picture is tested beside the format.
OBJECTS = Format(lambda result: {"at": result.position}, lambda entries: {"joined": list(entries)})
LISTS = Format(lambda result: [result.position], lambda entries: ["joined", *entries])
FIRST, LAST = result_of(TWO), result_of(NOTHING, position=2)

Body = Callable[[Sequence[Result | RequestError], Format], bytes]


@pytest.mark.parametrize(
    ("results", "of_objects", "of_lists"),
    [
        pytest.param([], {"joined": []}, ["joined"], id="no-pictures"),
        pytest.param([FIRST], {"at": 0}, [0], id="one"),
        pytest.param(
            [FIRST, BROKEN, LAST],
            {"joined": [{"at": 0}, ERROR, {"at": 2}]},
            ["joined", [0], ERROR, [2]],
            id="several",
        ),
        pytest.param(
            [BROKEN, BROKEN], {"joined": [ERROR, ERROR]}, ["joined", ERROR, ERROR], id="all-broken"
        ),
    ],
)
def test_plain_is_one_entry_or_several_joined_as_the_format_says(
    results: list[Any], of_objects: Any, of_lists: Any
) -> None:
    assert parsed(plain_body(results, OBJECTS)) == of_objects
    assert parsed(plain_body(results, LISTS)) == of_lists


@pytest.mark.parametrize(
    ("results", "of_objects", "of_lists"),
    [
        pytest.param([], [], [], id="no-pictures"),
        pytest.param([FIRST], [{"at": 0}], [[0]], id="one"),
        pytest.param(
            [FIRST, BROKEN, LAST], [{"at": 0}, ERROR, {"at": 2}], [[0], ERROR, [2]], id="several"
        ),
    ],
)
def test_instances_are_always_answered_by_predictions(
    results: list[Any], of_objects: Any, of_lists: Any
) -> None:
    assert parsed(instances_body(results, OBJECTS)) == {"predictions": of_objects}
    assert parsed(instances_body(results, LISTS)) == {"predictions": of_lists}


@pytest.mark.parametrize(
    ("results", "of_objects", "of_lists"),
    [
        pytest.param([], [], [], id="no-pictures"),
        pytest.param([FIRST], [{"at": 0}], [{"prediction": [0]}], id="one"),
        pytest.param(
            [FIRST, BROKEN, LAST],
            [{"at": 0}, ERROR, {"at": 2}],
            [{"prediction": [0]}, ERROR, {"prediction": [2]}],
            id="several",
        ),
    ],
)
def test_lines_are_objects(results: list[Any], of_objects: Any, of_lists: Any) -> None:
    assert lines_of(lines_body(results, OBJECTS)) == of_objects
    assert lines_of(lines_body(results, LISTS)) == of_lists


def lines_of(body: bytes) -> list[Any]:
    """Every line ends with a line feed."""
    *lines, rest = body.decode("utf-8").split("\n")
    assert rest == ""
    return [json.loads(line) for line in lines]


def test_line_breaks_within_names_do_not_break_lines() -> None:
    names = ("a\nb", "c\u2028d", "e\r\nf")
    result = result_of(TWO, model=replace(MODEL, class_names=names))
    body = lines_body([result, result], FORMATS["default"])
    assert body.count(b"\n") == 2
    assert b"\r" not in body


@pytest.mark.parametrize("body", [plain_body, instances_body, lines_body])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_goes_into_every_body(body: Body, name: str) -> None:
    assert b"NaN" not in body([result_of(TWO), BROKEN, LAST], FORMATS[name])
