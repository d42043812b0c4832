"""Outputs of the upstream `detectron2` package's models -> Detections."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2serve.detections import Detections, Panoptic, Segment
from d2serve.model.structures import around, clip, larger_than, limits

MASK_SIDE = 56


def enclosing_boxes(rotated: Tensor) -> Tensor:
    """Float[N, 5] rotated boxes -> Float[N, 4] the smallest upright x1, y1, x2, y2 around each."""
    centre_x, centre_y, width, height, angle = rotated.unbind(-1)
    cosine, sine = _cosine_and_sine(angle)
    half_width = (width * cosine.abs() + height * sine.abs()) / 2
    half_height = (width * sine.abs() + height * cosine.abs()) / 2
    return around(centre_x, centre_y, half_width, half_height)


def masks_over(rotated: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """The rotated boxes drawn over upright ones, as `Detections.masks` are.

    Across the outline the values fall evenly over one and a half mask cells, 0.5 at the outline, so
    that what is interpolated between cells has it in the same place; only corners lose up to one
    cell.

    Args:
        rotated: Float[N, 5].
        boxes_xyxy: Float[N, 4] that are wider and higher than 0.

    Returns:
        Float[N, MASK_SIDE, MASK_SIDE] in 0..1.
    """
    centre_x, centre_y, width, height, angle = (column[:, None, None] for column in rotated.T)
    cosine, sine = _cosine_and_sine(angle)
    cells = (torch.arange(MASK_SIDE, device=rotated.device) + 0.5) / MASK_SIDE
    x1, y1, x2, y2 = (column[:, None, None] for column in boxes_xyxy.T)
    x = x1 + cells[None, None, :] * (x2 - x1) - centre_x
    y = y1 + cells[None, :, None] * (y2 - y1) - centre_y
    inside = torch.minimum(
        width / 2 - (cosine * x - sine * y).abs(), height / 2 - (sine * x + cosine * y).abs()
    )
    cell_side = torch.maximum(x2 - x1, y2 - y1) / MASK_SIDE
    return (0.5 + inside / (1.5 * cell_side)).clamp(0, 1)


def _cosine_and_sine(degrees: Tensor) -> tuple[Tensor, Tensor]:
    radians = degrees * (math.pi / 180)
    return radians.cos(), radians.sin()


# Of masks that come as pixels of the whole picture: that of a box is resampled to this side.
CROPPED_MASK_SIDE = 224
# Where masks are kept that are still probabilities over their boxes.
BOX_MASKS = "box_masks"
Answer = Mapping[str, Any]


def detections_of(answer: Answer, size_hw: tuple[int, int]) -> Detections:
    """One picture's answer, in that picture's pixels, as Detections.

    Args:
        answer: any of `instances` or `proposals` (with `pred_boxes` or `proposal_boxes`, upright or
            rotated; `scores` or `objectness_logits`; `pred_classes`; `pred_masks` as Bool[N, H, W]
            or BOX_MASKS as Float[N, 1, M, M]; `pred_keypoints`), `sem_seg` (Float[C, H, W]) and
            `panoptic_seg` (Int[H, W] and its segments).
        size_hw: height and width of the picture.
    """
    found = answer.get("instances", answer.get("proposals"))
    semantic = answer.get("sem_seg")
    panoptic = answer.get("panoptic_seg")
    return Detections(
        size_hw=size_hw,
        **(_nothing(panoptic is not None) if found is None else _instances(found, size_hw)),
        semantic=None if semantic is None else _array(semantic.argmax(dim=0), np.int32),
        panoptic=None if panoptic is None else _panoptic(*panoptic),
    )


def label_segments(
    labels: Tensor, thing_classes: Collection[int], label_divisor: int
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Panoptic-DeepLab's labels -> a map of segments 1, 2, ... and what each is.

    Args:
        labels: Int[H, W], class x `label_divisor` + instance, below 0 where there is nothing.
        thing_classes: those of countable objects.
        label_divisor: more than the instances of one class.
    """
    present = [label for label in torch.unique(labels).tolist() if label >= 0]
    ids = torch.zeros_like(labels)
    segments = []
    for identity, label in enumerate(present, start=1):
        ids[labels == label] = identity
        kind = label // label_divisor
        segments.append({"id": identity, "category_id": kind, "isthing": kind in thing_classes})
    return ids, segments


def _instances(found: Any, size_hw: tuple[int, int]) -> dict[str, Any]:
    boxes = _boxes(found)
    upright = enclosing_boxes(boxes) if boxes.shape[1] == 5 else boxes
    upright = clip(upright, limits([size_hw], boxes.device))
    order = torch.argsort(_confidences(found), descending=True, stable=True)
    order = order[larger_than(upright, 0.0)[order]]
    found, upright = found[order], upright[order]
    keypoints = found.pred_keypoints if found.has("pred_keypoints") else None
    masks = _masks(found, upright)
    return {
        "boxes_xyxy": _array(upright, np.float32),
        "scores": _array(_scores(found), np.float32),
        "classes": _array(_classes(found), np.int64),
        "masks": None if masks is None else _array(masks, np.float32),
        "keypoints": None if keypoints is None else _array(keypoints, np.float32),
    }


def _nothing(with_masks: bool) -> dict[str, Any]:
    side = CROPPED_MASK_SIDE
    return {
        "boxes_xyxy": np.zeros((0, 4), np.float32),
        "scores": np.zeros(0, np.float32),
        "classes": np.zeros(0, np.int64),
        "masks": np.zeros((0, side, side), np.float32) if with_masks else None,
    }


def _boxes(found: Any) -> Tensor:
    return (found.pred_boxes if found.has("pred_boxes") else found.proposal_boxes).tensor


def _confidences(found: Any) -> Tensor:
    return found.scores if found.has("scores") else found.objectness_logits


def _scores(found: Any) -> Tensor:
    """In 0..1; Panoptic-DeepLab's product of a probability and an unbounded heat may leave it."""
    confidences = _confidences(found)
    return confidences.clamp(0, 1) if found.has("scores") else confidences.sigmoid()


def _classes(found: Any) -> Tensor:
    if found.has("pred_classes"):
        return found.pred_classes
    return torch.zeros(len(found), dtype=torch.int64)


def _masks(found: Any, upright: Tensor) -> Tensor | None:
    if found.has(BOX_MASKS):
        return found.get(BOX_MASKS)[:, 0]
    if found.has("pred_masks"):
        return _cropped(found.pred_masks, upright)
    boxes = _boxes(found)
    return masks_over(boxes, upright) if boxes.shape[1] == 5 else None


def _cropped(masks: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """Bool[N, H, W] -> Float[N, M, M], the share of each cell of the box that is set.

    Pasted back, outlines move by less than one cell, so not at all for boxes of up to half of
    CROPPED_MASK_SIDE pixels (`detectron2.structures.BitMasks.crop_and_resize` makes training
    targets in the same way). One at a time, because the floats take four times the memory.
    """
    from torchvision.ops import roi_align  # takes its time to load, and few models need it

    side = CROPPED_MASK_SIDE
    crops = [
        roi_align(mask[None, None].float(), [box[None]], side, aligned=True)[0, 0]
        for mask, box in zip(masks, boxes_xyxy, strict=True)
    ]
    return torch.stack(crops) if crops else boxes_xyxy.new_zeros((0, side, side))


def _panoptic(ids: Tensor, segments: Sequence[Mapping[str, Any]]) -> Panoptic:
    return Panoptic(
        ids=_array(ids, np.int32),
        segments=tuple(
            Segment(
                id=segment["id"],
                class_index=segment["category_id"],
                is_thing=segment["isthing"],
                score=segment.get("score"),
            )
            for segment in segments
        ),
    )


def _array(tensor: Tensor, dtype: type[np.generic]) -> Any:
    return tensor.numpy(force=True).astype(dtype, copy=False)
