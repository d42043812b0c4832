"""Masks from RLE and polygons are those that were encoded."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from d2serve.detections import Detections
from d2serve.masks.decoding import decode_polygons, decode_rles
from d2serve.masks.runs import Runs

SQUARE = {"size": [3, 4], "counts": "42102"}


def detections_of(runs: Runs) -> Detections:
    count = len(runs)
    return Detections(
        size_hw=runs.size_hw,
        boxes_xyxy=np.zeros((count, 4), np.float32),
        scores=np.ones(count, np.float32),
        classes=np.zeros(count, np.int64),
        mask_runs=runs,
    )


def random_masks(seed: int, share: float) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    generator = np.random.default_rng(seed)
    return generator.random((3, *generator.integers(1, 40, 2))) < share


@given(st.integers(0, 2**32), st.floats(0, 1))
def test_rle_of_pycocotools_keeps_pixels_and_text(seed: int, share: float) -> None:
    masks = random_masks(seed, share)
    rles = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    found = detections_of(decode_rles(rles, masks.shape[1:]))
    assert np.array_equal(found.masks_dense(), masks)
    assert [rle["counts"] for rle in found.masks_rle()] == [
        each["counts"].decode() for each in rles
    ]
    assert found.select([0, 2]).masks_rle() == [found.masks_rle()[index] for index in (0, 2)]
    assert not found.without_masks().has_masks


@given(st.integers(0, 2**32), st.floats(0, 1))
def test_polygons_keep_all_pixels_but_holes(seed: int, share: float) -> None:
    runs = decode_rles(
        [coco_mask.encode(np.asfortranarray(random_masks(seed, share)[0].astype(np.uint8)))],
        random_masks(seed, share).shape[1:],
    )
    outlines = detections_of(runs).masks_polygons()
    filled = detections_of(decode_polygons(outlines, runs.size_hw))
    assert (filled.masks_dense() >= detections_of(runs).masks_dense()).all()
    # Filled masks have no holes, and keep every pixel from here on.
    again = decode_polygons(filled.masks_polygons(), runs.size_hw)
    assert np.array_equal(again.bounds, filled._pasted_runs().bounds)


def test_lengths_may_be_a_list_and_runs_may_be_empty() -> None:
    expected = decode_rles([SQUARE], (3, 4)).bounds.tolist()
    assert (
        decode_rles([{"size": [3, 4], "counts": [4, 2, 1, 2, 3]}], (3, 4)).bounds.tolist()
        == expected
    )
    touching = [{"size": [3, 4], "counts": [4, 1, 0, 1, 1, 2, 0, 0, 3]}]
    assert decode_rles(touching, (3, 4)).bounds.tolist() == expected


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("42103", "do not add up to the 12 pixels of 4x3"),
        ("", "do not add up"),
        ([13, -1], "do not add up"),
        pytest.param([2**62] * 4 + [12], "do not add up", id="a-sum-that-overflows"),
        ("4210Q", "ends within a number"),
        ("42 10", "a character that compressed RLE does not have"),
        ("4210☃", "a character that compressed RLE does not have"),
        ("ooooooooooooo0", "a number of 14 characters"),
        ([1.5], "expected text or a list of integers"),
        (None, "expected text or a list of integers"),
    ],
)
def test_invalid_rle_is_an_error(counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_rles([{"size": [3, 4], "counts": counts}], (3, 4))


def test_rle_of_another_image_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"size of a mask is \[3, 4\]; expected \[4, 3\]"):
        decode_rles([SQUARE], (4, 3))


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        ([0, 0, 2, 2, 0, 2], "not along pixels"),
        ([0, 0, 0, 1.5, 2, 1.5, 2, 0], "not along pixels"),
        ([0, 0, 0, 4, 2, 4, 2, 0], "outside the image of 4x3"),
        ([-1, 0, -1, 1, 2, 1, 2, 0], "outside the image of 4x3"),
        ([float("nan"), 0, 0, 1, 2, 1, 2, 0], "outside the image of 4x3"),
    ],
)
def test_invalid_polygon_is_an_error(outline: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_polygons([[outline]], (3, 4))


def test_masks_of_another_number_or_size_are_an_error() -> None:
    found = detections_of(decode_rles([SQUARE], (3, 4)))
    with pytest.raises(ValueError, match="mask_runs has 1 masks of 4x3 pixels; expected 1 of 4x5"):
        Detections((5, 4), found.boxes_xyxy, found.scores, found.classes, mask_runs=found.mask_runs)
