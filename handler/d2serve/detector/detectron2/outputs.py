"""Convert outputs of the upstream `detectron2` package to Detections."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2serve.detections import Detections
from d2serve.masks.panoptic import Panoptic, Segment
from d2serve.model.structures import around, clip, larger_than, limits

# Side of the masks that are drawn from rotated boxes.
MASK_SIDE = 56
# Masks of the whole image are resampled inside their boxes to this side.
CROPPED_MASK_SIDE = 224
# Field of masks that are probabilities relative to their boxes.
BOX_MASKS = "box_masks"
Output = Mapping[str, Any]


def enclosing_boxes(rotated: Tensor) -> Tensor:
    """Convert rotated boxes, Float[N, 5], to the enclosing upright x1, y1, x2, y2, Float[N, 4]."""
    centre_x, centre_y, width, height, angle = rotated.unbind(-1)
    cosine, sine = _cosine_and_sine(angle)
    half_width = (width * cosine.abs() + height * sine.abs()) / 2
    half_height = (width * sine.abs() + height * cosine.abs()) / 2
    return around(centre_x, centre_y, half_width, half_height)


def masks_over(rotated: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """Draw rotated boxes as masks relative to upright ones, in the format of `Detections.masks`.

    The values fall linearly over one and a half mask cells across the outline, 0.5 on it, so that
    interpolation between cells keeps its position; only corners lose up to one cell.

    Args:
        rotated: Float[N, 5].
        boxes_xyxy: Float[N, 4] with widths and heights above 0.

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


def to_detections(output: Output, size_hw: tuple[int, int]) -> Detections:
    """Convert the output for an image, in pixels of that image.

    Args:
        output: any of `instances` or `proposals` (with `pred_boxes` or `proposal_boxes`, upright or
            rotated; `scores` or `objectness_logits`; `pred_classes`; `pred_masks` as Bool[N, H, W]
            or BOX_MASKS as Float[N, 1, M, M]; `pred_keypoints`), `sem_seg` (Float[C, H, W]) and
            `panoptic_seg` (Int[H, W] and its segments).
        size_hw: height and width of the image.
    """
    instances = output.get("instances", output.get("proposals"))
    semantic = output.get("sem_seg")
    panoptic = output.get("panoptic_seg")
    if instances is None:
        fields = _no_instances(with_masks=panoptic is not None)
    else:
        fields = _fields(instances, size_hw)
    return Detections(
        size_hw=size_hw,
        **fields,
        semantic=None if semantic is None else _array(semantic.argmax(dim=0), np.int32),
        panoptic=None if panoptic is None else _panoptic(*panoptic),
    )


def label_segments(
    labels: Tensor, thing_classes: Collection[int], label_divisor: int
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Convert Panoptic-DeepLab's labels to a map of segments 1, 2, ... and their classes.

    Args:
        labels: Int[H, W], class x `label_divisor` + instance, below 0 for unlabelled pixels.
        thing_classes: the classes of countable objects.
        label_divisor: greater than the number of instances of a class.
    """
    present = [label for label in torch.unique(labels).tolist() if label >= 0]
    ids = torch.zeros_like(labels)
    segments = []
    for identity, label in enumerate(present, start=1):
        ids[labels == label] = identity
        kind = label // label_divisor
        segments.append({"id": identity, "category_id": kind, "isthing": kind in thing_classes})
    return ids, segments


def _fields(instances: Any, size_hw: tuple[int, int]) -> dict[str, Any]:
    boxes = _boxes(instances)
    upright = enclosing_boxes(boxes) if boxes.shape[1] == 5 else boxes
    upright = clip(upright, limits([size_hw], boxes.device))
    order = torch.argsort(_confidences(instances), descending=True, stable=True)
    order = order[larger_than(upright, 0.0)[order]]
    instances, upright = instances[order], upright[order]
    keypoints = instances.pred_keypoints if instances.has("pred_keypoints") else None
    masks = _masks(instances, upright)
    return {
        "boxes_xyxy": _array(upright, np.float32),
        "scores": _array(_scores(instances), np.float32),
        "classes": _array(_classes(instances), np.int64),
        "masks": None if masks is None else _array(masks, np.float32),
        "keypoints": None if keypoints is None else _array(keypoints, np.float32),
    }


def _no_instances(*, with_masks: bool) -> dict[str, Any]:
    side = CROPPED_MASK_SIDE
    return {
        "boxes_xyxy": np.zeros((0, 4), np.float32),
        "scores": np.zeros(0, np.float32),
        "classes": np.zeros(0, np.int64),
        "masks": np.zeros((0, side, side), np.float32) if with_masks else None,
    }


def _boxes(instances: Any) -> Tensor:
    return (
        instances.pred_boxes if instances.has("pred_boxes") else instances.proposal_boxes
    ).tensor


def _confidences(instances: Any) -> Tensor:
    return instances.scores if instances.has("scores") else instances.objectness_logits


def _scores(instances: Any) -> Tensor:
    """Scores in 0..1; those of Panoptic-DeepLab multiply a probability by an unbounded value."""
    confidences = _confidences(instances)
    return confidences.clamp(0, 1) if instances.has("scores") else confidences.sigmoid()


def _classes(instances: Any) -> Tensor:
    if instances.has("pred_classes"):
        return instances.pred_classes
    return torch.zeros(len(instances), dtype=torch.int64)


def _masks(instances: Any, upright: Tensor) -> Tensor | None:
    if instances.has(BOX_MASKS):
        return instances.get(BOX_MASKS)[:, 0]
    if instances.has("pred_masks"):
        return _cropped(instances.pred_masks, upright)
    boxes = _boxes(instances)
    return masks_over(boxes, upright) if boxes.shape[1] == 5 else None


def _cropped(masks: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """Resample Bool[N, H, W] inside the boxes to Float[N, M, M], the covered part of each cell.

    Pasted back, outlines move by less than a cell: by zero pixels for boxes of up to half of
    CROPPED_MASK_SIDE pixels (`detectron2.structures.BitMasks.crop_and_resize` makes training
    targets in the same way). Masks are converted one at a time to save memory.
    """
    from torchvision.ops import roi_align  # slow to import, and few models need it

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
