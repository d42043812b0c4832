from typing import Any

import pytest

from d2serve.messages import FORMATS as NAMES_OF_FORMATS
from d2serve.outputs.formats import (
    FORMATS,
    class_scores,
    coco_results,
    default_object,
    jumpstart_object,
    relative_rows,
)
from tests.outputs.results import BROKEN

ERROR = BROKEN.body()


def test_every_format_that_a_client_may_ask_for_is_there() -> None:
    assert tuple(FORMATS) == NAMES_OF_FORMATS


@pytest.mark.parametrize("name", ["default", "jumpstart"])
@pytest.mark.parametrize("entries", [[], [{"a": 1}, ERROR]], ids=["none", "several"])
def test_objects_are_joined_under_predictions(name: str, entries: list[Any]) -> None:
    assert FORMATS[name].join(entries) == {"predictions": entries}


@pytest.mark.parametrize("name", ["clarify", "clarify-scores"])
@pytest.mark.parametrize("entries", [[], [[1, 2], ERROR, []]], ids=["none", "several"])
def test_clarifys_lists_are_joined_to_a_list_of_lists(name: str, entries: list[Any]) -> None:
    assert FORMATS[name].join(entries) == entries


@pytest.mark.parametrize(
    ("entries", "joined"),
    [
        pytest.param([], [], id="none"),
        pytest.param([[], []], [], id="nothing-found"),
        pytest.param([["a"], [], ["b", "c"]], ["a", "b", "c"], id="several"),
        pytest.param([["a"], ERROR], ["a", {"image_id": 1, **ERROR}], id="an-error"),
    ],
)
def test_cocos_lists_become_one(entries: list[Any], joined: list[Any]) -> None:
    assert FORMATS["coco"].join(entries) == joined


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("default", default_object),
        ("clarify", relative_rows),
        ("clarify-scores", class_scores),
        ("coco", coco_results),
        ("jumpstart", jumpstart_object),
    ],
)
def test_every_name_leads_to_its_own_entry(name: str, entry: Any) -> None:
    assert FORMATS[name].entry is entry
