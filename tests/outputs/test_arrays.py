import io
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from d2serve.detections import Detections
from d2serve.errors import RequestError
from d2serve.masks.panoptic import Panoptic
from d2serve.outputs.arrays import npy_body, npz_body
from tests.fakes import detections_of
from tests.outputs.results import (
    NO_DETECTIONS,
    TWO,
    TWO_OF_ALL,
    TWO_WITHOUT_MASKS,
    dense_masks,
    result_of,
)

PLENTY = 10_000_000
# 2 x (4 coordinates x 4 + score 4 + class 8 + mask 80 x 160) bytes.
BYTES_OF_TWO = 25_656


def npz_arrays(body: bytes) -> dict[str, npt.NDArray[Any]]:
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(NO_DETECTIONS, np.zeros((0, 6)), id="no-detections"),
        pytest.param(
            TWO,
            [[2, 0.998, 0.1, 0.103125, 0.503125, 0.9], [0, 0.75, 0, 0, 1, 1]],
            id="two",
        ),
    ],
)
def test_npy_contains_clarify_rows(found: Detections, expected: npt.ArrayLike) -> None:
    rows = np.load(io.BytesIO(npy_body(found)), allow_pickle=False)
    assert (rows.dtype, rows.shape) == (np.float32, (len(found), 6))
    np.testing.assert_array_equal(rows, np.array(expected, dtype=np.float32))


@pytest.mark.parametrize(
    ("found", "mask_shape"),
    [
        pytest.param(NO_DETECTIONS, (0, 40, 30), id="no-detections"),
        pytest.param(TWO_WITHOUT_MASKS, (0, 80, 160), id="no-masks"),
        pytest.param(TWO, (2, 80, 160), id="two"),
    ],
)
def test_npz_contains_the_detections(found: Detections, mask_shape: tuple[int, ...]) -> None:
    arrays = npz_arrays(npz_body(result_of(found), PLENTY))
    assert list(arrays) == ["boxes", "scores", "classes", "masks"]
    assert arrays["boxes"].dtype == arrays["scores"].dtype == np.float32
    np.testing.assert_array_equal(arrays["boxes"], found.boxes_xyxy)
    np.testing.assert_array_equal(arrays["scores"], found.scores)
    assert arrays["classes"].dtype == np.int64
    np.testing.assert_array_equal(arrays["classes"], found.classes)
    assert arrays["masks"].dtype == np.uint8
    assert arrays["masks"].shape == mask_shape


def test_npz_contains_masks_of_the_whole_image() -> None:
    masks = npz_arrays(npz_body(result_of(TWO), PLENTY))["masks"]
    assert set(np.unique(masks)) == {0, 1}
    np.testing.assert_array_equal(masks, dense_masks(TWO))


def test_npz_at_the_size_limit_is_returned() -> None:
    assert npz_body(result_of(TWO), BYTES_OF_TWO)


def test_npz_over_the_size_limit_is_a_413() -> None:
    with pytest.raises(RequestError, match="25656 bytes, the limit is 25655") as raised:
        npz_body(result_of(TWO), BYTES_OF_TWO - 1)
    assert (raised.value.status, raised.value.code) == (413, "too_large")


def test_too_many_masks_are_rejected_before_allocation() -> None:
    size_hw = (1_000_000, 1_000_000)
    huge = detections_of(size_hw, [(0, 0, 9, 9)] * 100)
    with pytest.raises(RequestError, match="the limit is 10000000"):
        npz_body(replace(result_of(NO_DETECTIONS), detections=huge), PLENTY)


def test_npz_contains_all_outputs_of_the_model() -> None:
    arrays = npz_arrays(npz_body(result_of(TWO_OF_ALL), PLENTY))
    more = {"mask_scores", "keypoints", "panoptic", "panoptic_segments", "semantic"}
    more |= {"densepose", "densepose_instances"}
    assert set(arrays) == {"boxes", "scores", "classes", "masks", *more}
    assert TWO_OF_ALL.mask_scores is not None
    assert TWO_OF_ALL.keypoints is not None
    assert TWO_OF_ALL.panoptic is not None
    assert TWO_OF_ALL.semantic is not None
    for name, expected in {
        "mask_scores": TWO_OF_ALL.mask_scores,
        "keypoints": TWO_OF_ALL.keypoints,
        "panoptic": TWO_OF_ALL.panoptic.ids,
        "panoptic_segments": np.array([(1, 2, 1), (2, 4, 0)]),
        "semantic": TWO_OF_ALL.semantic,
    }.items():
        assert arrays[name].dtype == expected.dtype
        np.testing.assert_array_equal(arrays[name], expected)


def test_panoptic_map_without_segments_has_no_rows() -> None:
    empty = replace(
        NO_DETECTIONS, panoptic=Panoptic(np.zeros(NO_DETECTIONS.size_hw, dtype=np.int32), ())
    )
    assert npz_arrays(npz_body(result_of(empty), PLENTY))["panoptic_segments"].shape == (0, 3)


@pytest.mark.parametrize(
    ("name", "size"),
    [("keypoints", 2 * 2 * 3 * 4), ("semantic", 80 * 160 * 4), ("panoptic", 80 * 160 * 4 + 48)],
)
def test_keypoints_and_maps_count_towards_the_size_limit(name: str, size: int) -> None:
    result = result_of(replace(TWO, **{name: getattr(TWO_OF_ALL, name)}))
    assert npz_body(result, BYTES_OF_TWO + size)
    with pytest.raises(RequestError, match=f"{BYTES_OF_TWO + size} bytes"):
        npz_body(result, BYTES_OF_TWO + size - 1)
