import json

import pytest

from d2serve.outputs.formats import class_scores, relative_rows
from tests.fakes import detections_of
from tests.outputs.results import NOTHING, TWO, result_of


def test_nothing_found_has_no_rows() -> None:
    assert relative_rows(result_of(NOTHING)) == []


def test_rows_are_class_score_and_a_relative_box() -> None:
    assert json.dumps(relative_rows(result_of(TWO))) == json.dumps(
        [[2, 0.998, 0.1, 0.103125, 0.503125, 0.9], [0, 0.75, 0.0, 0.0, 1.0, 1.0]]
    )


@pytest.mark.parametrize(
    ("scores", "classes", "expected"),
    [
        pytest.param([], [], [0, 0, 0], id="nothing-found"),
        pytest.param([0.9], [1], [0, 0.9, 0], id="one"),
        pytest.param([0.9, 0.5], [2, 0], [0.5, 0, 0.9], id="two-classes"),
        pytest.param([0.9, 0.8, 0.7], [1, 1, 1], [0, 0.9, 0], id="the-best-of-a-class"),
        pytest.param([0.9, 0.8, 0.7, 0.6], [2, 0, 2, 0], [0.8, 0, 0.9], id="the-best-of-each"),
    ],
)
def test_scores_are_each_classs_best_in_class_order(
    scores: list[float], classes: list[int], expected: list[float]
) -> None:
    boxes = [(1, 1, 5, 5)] * len(scores)
    assert class_scores(result_of(detections_of((9, 9), boxes, scores, classes))) == expected
