"""Filtering, rounding, labels and JSON text shared by all formats."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
from scipy.ndimage import binary_fill_holes

from d2serve.detections import round_keypoints, round_pixels, round_scores
from d2serve.errors import RequestError
from d2serve.messages import Options
from d2serve.outputs.result import (
    check_size,
    filter_detections,
    json_bytes,
    json_text,
    label_texts,
    relative_boxes,
    segmentations,
)
from tests.fakes import detections_of
from tests.outputs.results import ALL, NAMES, NO_DETECTIONS, TWO, TWO_WITHOUT_MASKS, dense_masks

# In single precision 0.05 is greater than 0.05, and 0.7 is less than 0.7.
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
        pytest.param({"score_threshold": 1.0}, [], id="threshold-above-all-scores"),
        pytest.param({"classes": frozenset()}, [], id="no-class"),
        pytest.param({"classes": frozenset({3})}, [], id="class-without-detections"),
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
        pytest.param({"max_detections": 5}, [0, 1, 2, 3, 4], id="as-many-as-detections"),
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
def test_matching_detections_keep_their_order(
    options: dict[str, object], expected: list[int]
) -> None:
    kept = filter_detections(FIVE, replace(ALL, **options))  # type: ignore[arg-type]
    np.testing.assert_array_equal(kept.boxes_xyxy, FIVE.boxes_xyxy[expected])
    np.testing.assert_array_equal(kept.classes, FIVE.classes[expected])
    assert kept.masks is not None
    assert FIVE.masks is not None
    np.testing.assert_array_equal(kept.masks, FIVE.masks[expected])


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.3, 0.5, 0.7, 1 / 3])
def test_network_threshold_drops_nothing(
    threshold: float,
) -> None:
    lowest = np.nextafter(np.float32(threshold), np.float32(1))
    found = detections_of((9, 9), [(1, 1, 5, 5)], scores=[float(lowest)])
    assert len(filter_detections(found, Options(threshold, max_detections=9))) == 1


NOT_FINITE = (np.nan, np.inf, -np.inf)


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("field", ["boxes_xyxy", "scores"])
def test_instances_that_are_not_finite_are_dropped(field: str, value: float) -> None:
    changed = getattr(FIVE, field).copy()
    changed[1] = value
    kept = filter_detections(replace(FIVE, **{field: changed}), ALL)
    np.testing.assert_array_equal(kept.classes, FIVE.classes[[0, 2, 3, 4]])


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("column", [0, 1, 2])
def test_keypoints_that_are_not_finite_have_no_place_and_no_score(
    value: float, column: int
) -> None:
    keypoints = np.full((5, 2, 3), 0.5, np.float32)
    keypoints[1, 0, column] = value
    kept = filter_detections(replace(FIVE, keypoints=keypoints), ALL).keypoints
    assert kept is not None
    expected = np.full((5, 2, 3), 0.5, np.float32)
    expected[1, 0] = 0
    np.testing.assert_array_equal(kept, expected)
    assert not np.isfinite(keypoints[1, 0, column])


@pytest.mark.parametrize("encoding", ["rle", "polygon"])
def test_requested_masks_are_kept(encoding: str) -> None:
    assert filter_detections(FIVE, replace(ALL, masks=encoding)).masks is not None


def test_masks_are_dropped_with_masks_none() -> None:
    kept = filter_detections(FIVE, replace(ALL, masks="none"))
    assert (len(kept), kept.masks) == (5, None)


def test_no_detections_stay_empty() -> None:
    assert len(filter_detections(detections_of((9, 9), []), ALL)) == 0


@pytest.mark.parametrize(
    ("values", "pixels", "shares"),
    [
        pytest.param([], "[]", "[]", id="empty"),
        pytest.param([0.123456789], "[0.123]", "[0.123457]", id="both-rounded"),
        pytest.param([10.1, 2.0], "[10.1, 2.0]", "[10.1, 2.0]", id="shorter-than-single-precision"),
        pytest.param([[0.5, 1.0]], "[[0.5, 1.0]]", "[[0.5, 1.0]]", id="nested"),
    ],
)
def test_pixels_and_scores_are_rounded(values: list[float], pixels: str, shares: str) -> None:
    array = np.array(values, dtype=np.float32)
    assert json.dumps(round_pixels(array)) == pixels
    assert json.dumps(round_scores(array)) == shares


def test_keypoints_are_rounded() -> None:
    keypoints = np.array([[[1.00051, 2.00049, 0.1234567]]], dtype=np.float32)
    assert round_keypoints(keypoints) == [[[1.001, 2.0, 0.123457]]]
    assert keypoints[0, 0, 2] == np.float32(0.1234567)


def test_relative_boxes_of_no_detections_are_empty() -> None:
    assert relative_boxes(detections_of((10, 40), [])).shape == (0, 4)


def test_relative_boxes_divide_x_by_the_width_and_y_by_the_height() -> None:
    found = detections_of((10, 40), [(4, 1, 20, 5)])
    np.testing.assert_allclose(relative_boxes(found), [[0.1, 0.1, 0.5, 0.5]])


def test_relative_boxes_are_within_0_and_1_for_odd_sizes() -> None:
    height, width = 333, 777
    boxes = [(0, 0, width, height), (776.3, 332.7, width, height), (0, 0, 0.01, 0.01)]
    relative = relative_boxes(detections_of((height, width), boxes))
    assert ((relative >= 0) & (relative <= 1)).all()
    assert (relative[:, :2] <= relative[:, 2:]).all()
    np.testing.assert_array_equal(relative[0], [0, 0, 1, 1])


def test_no_detections_have_no_labels() -> None:
    assert label_texts(NO_DETECTIONS, NAMES) == []


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        pytest.param(1.0, "dog 100%", id="certain"),
        pytest.param(0.996, "dog 100%", id="rounded-up"),
        pytest.param(0.994, "dog 99%", id="rounded-down"),
        pytest.param(0.051, "dog 5%", id="low"),
        pytest.param(0.001, "dog 0%", id="tiny-values"),
    ],
)
def test_labels_have_name_and_score_in_percent(score: float, expected: str) -> None:
    assert label_texts(detections_of((9, 9), [(1, 1, 5, 5)], [score], [1]), NAMES) == [expected]


def test_class_without_a_name_is_an_error() -> None:
    with pytest.raises(IndexError):
        label_texts(detections_of((9, 9), [(1, 1, 5, 5)], classes=[3]), NAMES)


@pytest.mark.parametrize("encoding", ["rle", "polygon"])
@pytest.mark.parametrize(
    "found", [NO_DETECTIONS, TWO_WITHOUT_MASKS], ids=["no-detections", "no-masks"]
)
def test_no_masks_give_no_segmentations(found: object, encoding: str) -> None:
    assert segmentations(found, encoding) == []  # type: ignore[arg-type]


def test_rle_decodes_to_the_masks() -> None:
    encoded = segmentations(TWO, "rle")
    assert [mask["size"] for mask in encoded] == [[80, 160]] * 2
    decoded = [pycocotools.mask.decode(mask) for mask in encoded]
    np.testing.assert_array_equal(decoded, dense_masks(TWO))


def test_polygons_rasterize_to_the_masks_without_holes() -> None:
    for polygons, mask in zip(segmentations(TWO, "polygon"), dense_masks(TWO), strict=True):
        merged = pycocotools.mask.merge(pycocotools.mask.frPyObjects(polygons, *TWO.size_hw))
        rasterized = pycocotools.mask.decode(merged).astype(bool)
        np.testing.assert_array_equal(rasterized, binary_fill_holes(mask))


def test_empty_mask_keeps_its_position() -> None:
    found = detections_of((9, 9), [(1, 1, 5, 5), (2, 2, 8, 8)])
    assert found.masks is not None
    found.masks[0] = 0
    first, second = segmentations(found, "polygon")
    assert first == []
    assert second != []
    empty, _ = segmentations(found, "rle")
    assert pycocotools.mask.area(empty) == 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param({}, b"{}", id="empty"),
        pytest.param({"a": [1, 2.5, None]}, b'{"a":[1,2.5,null]}', id="without-spaces"),
        pytest.param("grüner Ball", '"grüner Ball"'.encode(), id="unescaped-letters"),
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
def test_non_finite_numbers_are_rejected(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_text([number])


@pytest.mark.parametrize("size", [0, 9, 10], ids=["empty", "below", "just-as-many"])
def test_response_within_the_size_limit_passes(size: int) -> None:
    check_size(size, limit=10)


def test_larger_response_is_a_413_with_a_hint() -> None:
    with pytest.raises(RequestError, match="11 bytes, the limit is 10") as raised:
        check_size(11, limit=10)
    assert (raised.value.status, raised.value.code) == (413, "too_large")
    for remedy in ("masks=none", "max_detections", "max_response_bytes in model-config.yaml"):
        assert remedy in raised.value.hint
