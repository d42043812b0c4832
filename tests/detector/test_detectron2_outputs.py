"""Outputs of the detectron2 package as Detections."""

import cv2
import numpy as np
import pytest
import torch

from d2serve.detections import Detections
from d2serve.detector.detectron2.outputs import label_segments, to_detections
from d2serve.masks.panoptic import Segment
from d2serve.masks.paste import paste_mask
from tests.detector.instances import Boxes, Instances, instances

SIZE_HW = (60, 80)
A, B, C = (1.0, 2.0, 30.0, 40.0), (5.0, 5.0, 25.0, 50.0), (0.0, 0.0, 80.0, 60.0)


def mask_iou(
    found: Detections, index: int, expected: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
) -> float:
    assert found.masks is not None
    region = paste_mask(found.masks[index], found.boxes_xyxy[index], found.size_hw)
    mask = region.full(found.size_hw)
    return float((mask & expected).sum() / (mask | expected).sum())


def test_instances_are_sorted_by_score_with_all_fields() -> None:
    masks = torch.rand(3, 1, 28, 28)
    keypoints = torch.rand(3, 17, 3)
    raw = instances(A, B, C, scores=[0.2, 0.9, 0.5], box_masks=masks, pred_keypoints=keypoints)
    found = to_detections({"instances": raw}, SIZE_HW)
    assert found.classes.tolist() == [1, 2, 0]
    assert found.scores.tolist() == pytest.approx([0.9, 0.5, 0.2])
    assert found.boxes_xyxy.tolist() == [list(B), list(C), list(A)]
    assert found.masks is not None
    assert found.keypoints is not None
    np.testing.assert_array_equal(found.masks, masks[[1, 2, 0], 0])
    np.testing.assert_array_equal(found.keypoints, keypoints[[1, 2, 0]])
    assert found.semantic is None
    assert found.panoptic is None


def test_boxes_are_clipped_and_boxes_outside_are_dropped() -> None:
    raw = instances((-5, -5, 90, 10), (81, 5, 90, 10), (7, 7, 7, 9), scores=[0.3, 0.9, 0.5])
    found = to_detections({"instances": raw}, SIZE_HW)
    assert found.boxes_xyxy.tolist() == [[0, 0, 80, 10]]
    assert found.classes.tolist() == [0]
    assert found.masks is None


def test_scores_are_clipped_to_0_and_1() -> None:
    found = to_detections({"instances": instances(A, B, C, scores=[1.5, -0.5, 1.75])}, SIZE_HW)
    assert found.scores.tolist() == [1.0, 1.0, 0.0]
    assert found.classes.tolist() == [2, 0, 1], "the order is that of the model"


def test_proposals_have_one_class_and_the_probability_of_their_logit() -> None:
    boxes = Boxes(torch.tensor([A, B]))
    raw = Instances(proposal_boxes=boxes, objectness_logits=torch.tensor([-1.0, 2.0]))
    found = to_detections({"proposals": raw}, SIZE_HW)
    assert found.boxes_xyxy.tolist() == [list(B), list(A)]
    assert found.scores.tolist() == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(1))])
    assert found.classes.tolist() == [0, 0]


def test_model_without_instances() -> None:
    semantic = torch.zeros(3, *SIZE_HW)
    semantic[2, 10:, :] = 1.0
    found = to_detections({"sem_seg": semantic}, SIZE_HW)
    assert len(found) == 0
    assert found.masks is None
    assert found.semantic is not None
    assert found.semantic[9, 0] == 0
    assert (found.semantic[10:] == 2).all()


def test_panoptic_map_keeps_its_segments() -> None:
    ids = torch.zeros(SIZE_HW, dtype=torch.int64)
    ids[5:, :] = 7
    segments = [
        {"id": 7, "isthing": True, "score": 0.75, "category_id": 3, "instance_id": 0},
        {"id": 8, "isthing": False, "category_id": 2, "area": 5000},
    ]
    found = to_detections({"panoptic_seg": (ids, segments)}, SIZE_HW)
    assert found.panoptic is not None
    np.testing.assert_array_equal(found.panoptic.ids, ids)
    assert found.panoptic.segments == (
        Segment(id=7, class_index=3, is_thing=True, score=0.75),
        Segment(id=8, class_index=2, is_thing=False),
    )
    assert found.masks is not None, "the model has masks, even without an instance"
    assert found.masks.shape[0] == 0


def test_panoptic_labels_become_segments() -> None:
    labels = torch.tensor([[-1, 2000, 2000], [5001, 5002, -1]])
    ids, segments = label_segments(labels, {5}, 1000)
    assert ids.tolist() == [[0, 1, 1], [2, 3, 0]]
    assert segments == [
        {"id": 1, "category_id": 2, "isthing": False},
        {"id": 2, "category_id": 5, "isthing": True},
        {"id": 3, "category_id": 5, "isthing": True},
    ]


@pytest.mark.parametrize(("radius", "least_iou"), [(2, 1.0), (9, 1.0), (28, 1.0), (280, 0.99)])
def test_masks_of_the_whole_image_are_cropped_to_their_boxes(radius: int, least_iou: float) -> None:
    size_hw = (600, 700)
    drawn = cv2.ellipse(
        np.zeros(size_hw, np.uint8), (310, 290), (radius, radius // 2), 30, 0, 360, 1, -1
    )
    mask = drawn.astype(np.bool_)
    rows, columns = np.nonzero(mask)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    whole = torch.stack((torch.zeros(size_hw, dtype=torch.bool), torch.from_numpy(mask)))
    raw = instances((0, 0, 5, 5), box, scores=[0.2, 0.9], pred_masks=whole)
    found = to_detections({"instances": raw}, size_hw)
    assert mask_iou(found, 0, mask) >= least_iou
    assert found.masks is not None
    assert not found.masks[1].any()


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, -60.0, 135.0])
def test_rotated_box_becomes_an_upright_box_and_a_mask(angle: float) -> None:
    size_hw = (300, 400)
    raw = instances((200.0, 150.0, 180.0, 60.0, angle), scores=[0.5])
    found = to_detections({"instances": raw}, size_hw)
    corners = corners_of(200.0, 150.0, 180.0, 60.0, angle)
    low, high = corners.min(axis=0), corners.max(axis=0)
    np.testing.assert_allclose(found.boxes_xyxy[0], [*low, *high], atol=1e-3)
    assert mask_iou(found, 0, polygon(corners, size_hw)) >= 0.98


def test_rotated_box_over_the_border_is_clipped() -> None:
    size_hw = (100, 100)
    raw = instances((0.0, 50.0, 80.0, 40.0, 45.0), scores=[0.5])
    found = to_detections({"instances": raw}, size_hw)
    assert found.boxes_xyxy[0, 0] == 0
    expected = polygon(corners_of(0.0, 50.0, 80.0, 40.0, 45.0), size_hw)
    assert mask_iou(found, 0, expected) >= 0.97


def corners_of(
    x: float, y: float, width: float, height: float, angle: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The corners of a rotated box; OpenCV's angles are clockwise."""
    return cv2.boxPoints(((x, y), (width, height), -angle)).astype(np.float64)


def polygon(
    corners: np.ndarray[tuple[int, ...], np.dtype[np.float64]], size_hw: tuple[int, int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """The pixels whose centers are inside a convex polygon."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]] + 0.5
    sides = [
        (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1)
        for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True)
    ]
    return np.all(np.array(sides) >= 0, axis=0)
