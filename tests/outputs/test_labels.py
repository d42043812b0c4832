import pytest

from d2serve.outputs.result import label_texts
from tests.fakes import detections_of
from tests.outputs.results import NAMES, NOTHING


def test_nothing_found_has_no_labels() -> None:
    assert label_texts(NOTHING, NAMES) == []


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        pytest.param(1.0, "dog 100%", id="certain"),
        pytest.param(0.996, "dog 100%", id="rounded-up"),
        pytest.param(0.994, "dog 99%", id="rounded-down"),
        pytest.param(0.051, "dog 5%", id="low"),
        pytest.param(0.001, "dog 0%", id="almost-nothing"),
    ],
)
def test_labels_hold_the_name_and_the_score_in_percent(score: float, expected: str) -> None:
    assert label_texts(detections_of((9, 9), [(1, 1, 5, 5)], [score], [1]), NAMES) == [expected]


def test_detections_of_more_classes_than_names_are_not_answered_wrongly() -> None:
    with pytest.raises(IndexError):
        label_texts(detections_of((9, 9), [(1, 1, 5, 5)], classes=[3]), NAMES)
