from dataclasses import replace

import numpy as np
import pytest

from d2serve.messages import Options
from d2serve.outputs.result import selected
from tests.fakes import detections_of
from tests.outputs.results import ALL

# 0.05 in single precision is more than 0.05, 0.7 is less.
SCORES = (0.9, 0.7, 0.7, 0.3, 0.05)
FIVE = detections_of(
    (40, 30),
    boxes=[(index, index, index + 9, index + 9) for index in range(5)],
    scores=SCORES,
    classes=[0, 2, 1, 0, 2],
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"score_threshold": 1.0}, [], id="nothing-is-so-sure"),
        pytest.param({"classes": frozenset()}, [], id="no-class"),
        pytest.param({"classes": frozenset({3})}, [], id="a-class-that-was-not-found"),
        pytest.param({}, [0, 1, 2, 3, 4], id="all"),
        pytest.param({"score_threshold": 0.0}, [0, 1, 2, 3, 4], id="no-threshold"),
        pytest.param({"score_threshold": 0.05}, [0, 1, 2, 3, 4], id="the-last-ones-score"),
        pytest.param({"score_threshold": 0.050001}, [0, 1, 2, 3], id="just-above-it"),
        pytest.param({"score_threshold": 0.7}, [0, 1, 2], id="a-score-below-itself-in-double"),
        pytest.param({"score_threshold": 0.8}, [0], id="between-scores"),
        pytest.param({"classes": frozenset({0, 1, 2})}, [0, 1, 2, 3, 4], id="every-class"),
        pytest.param({"classes": frozenset({2})}, [1, 4], id="a-class"),
        pytest.param({"classes": frozenset({0, 1})}, [0, 2, 3], id="two-classes"),
        pytest.param({"max_detections": 1}, [0], id="the-best"),
        pytest.param({"max_detections": 3}, [0, 1, 2], id="the-three-best"),
        pytest.param({"max_detections": 5}, [0, 1, 2, 3, 4], id="as-many-as-there-are"),
        pytest.param(
            {"classes": frozenset({2}), "max_detections": 2}, [1, 4], id="the-best-of-a-class"
        ),
        pytest.param(
            {"classes": frozenset({0, 2}), "max_detections": 2, "score_threshold": 0.3},
            [0, 1],
            id="all-together",
        ),
    ],
)
def test_what_the_options_let_through_is_kept_in_its_order(
    options: dict[str, object], expected: list[int]
) -> None:
    kept = selected(FIVE, replace(ALL, **options))  # type: ignore[arg-type]
    np.testing.assert_array_equal(kept.boxes_xyxy, FIVE.boxes_xyxy[expected])
    np.testing.assert_array_equal(kept.classes, FIVE.classes[expected])
    assert kept.masks is not None
    assert FIVE.masks is not None
    np.testing.assert_array_equal(kept.masks, FIVE.masks[expected])


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.3, 0.5, 0.7, 1 / 3])
def test_the_networks_own_threshold_drops_nothing_that_the_network_let_through(
    threshold: float,
) -> None:
    lowest = np.nextafter(np.float32(threshold), np.float32(1))
    found = detections_of((9, 9), [(1, 1, 5, 5)], scores=[float(lowest)])
    assert len(selected(found, Options(threshold, max_detections=9))) == 1


@pytest.mark.parametrize("encoding", ["rle", "polygon"])
def test_masks_stay_where_they_are_wanted(encoding: str) -> None:
    assert selected(FIVE, replace(ALL, masks=encoding)).masks is not None


def test_masks_that_nobody_wants_are_gone() -> None:
    kept = selected(FIVE, replace(ALL, masks="none"))
    assert (len(kept), kept.masks) == (5, None)


def test_nothing_of_nothing_is_nothing() -> None:
    assert len(selected(detections_of((9, 9), []), ALL)) == 0
