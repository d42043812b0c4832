"""Detections -> the result of a Label Studio prediction."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from d2serve.detections import Detections
from d2serve.integrations.keypoints import MIN_KEYPOINT_SCORE, check_keypoint_count
from d2serve.integrations.label_studio.brush import encode_brush
from d2serve.integrations.label_studio.labeling_config import Control, LabelingConfig
from d2serve.integrations.outlines import DEFAULT_TOLERANCE_PX, outlines
from d2serve.masks.paste import MaskRegion

MASK_TAGS = ("BrushLabels", "PolygonLabels")
PERCENT = 100.0
# Of the image's width; the size at which a keypoint is drawn.
KEYPOINT_WIDTH = 0.5
ID_CHARACTERS = 10


@dataclass(frozen=True)
class RegionWriter:
    """Writes the regions of an image's instances.

    An instance has one region of the first kind for which the project has a label of its class and
    the model has the geometry: a brush mask, polygons (one for each part of the mask), a rectangle.
    Its keypoints have regions of their own, whose parent is the rectangle if there is one.

    Attributes:
        config: the project's labeling config.
        keypoints: names of the model's keypoints, for labels without the attribute `model_index`.
        tolerance_px: see `outlines`.
    """

    config: LabelingConfig
    keypoints: Sequence[str] = ()
    tolerance_px: float = DEFAULT_TOLERANCE_PX

    def write(self, detections: Detections) -> list[dict[str, Any]]:
        """Return the regions of all instances whose class has a label.

        Raises:
            CommandError: the model has another number of keypoints than names.
            ValueError: the image is too large for brush masks.
        """
        masks: Iterable[MaskRegion | None] = repeat(None, len(detections))
        if detections.has_masks:
            masks = detections.mask_regions()
        return [
            region
            for index, mask in enumerate(masks)
            for region in self._instance(detections, index, mask)
        ]

    def _instance(
        self, detections: Detections, index: int, mask: MaskRegion | None
    ) -> Iterator[dict[str, Any]]:
        common = {
            "original_width": detections.size_hw[1],
            "original_height": detections.size_hw[0],
            "image_rotation": 0,
            "score": float(detections.scores[index]),
        }
        parent: dict[str, str] = {}
        tags = (*MASK_TAGS, "RectangleLabels") if mask is not None else ("RectangleLabels",)
        if found := _labelled(self.config, detections.class_names[index], *tags):
            control, label = found
            for value in self._values(control, detections, index, mask):
                region = _region(control, label, value, common)
                parent = {"parentID": region["id"]} if control.tag == "RectangleLabels" else {}
                yield region
        for region in self._keypoint_regions(detections, index, common):
            yield region | parent

    def _values(
        self, control: Control, detections: Detections, index: int, mask: MaskRegion | None
    ) -> Iterator[dict[str, Any]]:
        if control.tag == "RectangleLabels":
            yield _rectangle(detections.boxes_xyxy[index], detections.size_hw)
        elif mask is not None and control.tag == "BrushLabels" and mask.pixels.any():
            yield {"format": "rle", "rle": encode_brush(mask, detections.size_hw)}
        elif mask is not None and control.tag == "PolygonLabels":
            for outline in outlines(mask, self.tolerance_px):
                yield {"points": _percent(outline, detections.size_hw), "closed": True}

    def _keypoint_regions(
        self, detections: Detections, index: int, common: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        control = next(self.config.controls_of("KeyPointLabels"), None)
        if control is None or detections.keypoints is None:
            return
        keypoints = detections.keypoints[index]
        labels = self._keypoint_labels(control, len(keypoints))
        points = _percent(keypoints[:, :2], detections.size_hw)
        for label, (x, y), score in zip(labels, points, keypoints[:, 2].tolist(), strict=True):
            if label and score >= MIN_KEYPOINT_SCORE:
                value = {"x": x, "y": y, "width": KEYPOINT_WIDTH}
                yield _region(control, label, value, common | {"score": score})

    def _keypoint_labels(self, control: Control, count: int) -> list[str | None]:
        """The label of each keypoint: that of its index, or else of its name."""
        if control.indices:
            return [control.indices.get(index) for index in range(count)]
        check_keypoint_count(self.keypoints, count)
        return [control.label_of(name) for name in self.keypoints]


def _labelled(config: LabelingConfig, name: str, *tags: str) -> tuple[Control, str] | None:
    """The first control of these kinds with a label for a name, and the label."""
    for control in config.controls_of(*tags):
        if label := control.label_of(name):
            return control, label
    return None


def _region(
    control: Control, label: str, value: dict[str, Any], common: dict[str, Any]
) -> dict[str, Any]:
    return {
        "id": uuid4().hex[:ID_CHARACTERS],
        "from_name": control.name,
        "to_name": control.image_name,
        "type": control.type,
        **common,
        "value": {**value, control.type: [label]},
    }


def _rectangle(box_xyxy: npt.NDArray[np.float32], size_hw: tuple[int, int]) -> dict[str, Any]:
    (x1, y1), (x2, y2) = _percent(box_xyxy.reshape(2, 2), size_hw)
    return {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "rotation": 0}


def _percent(points: npt.NDArray[np.floating], size_hw: tuple[int, int]) -> list[list[float]]:
    """Convert Float[N, 2] x and y in pixels to percent of the image's width and height."""
    scale = PERCENT / np.array([size_hw[1], size_hw[0]], np.float64)
    percent: list[list[float]] = (points.astype(np.float64) * scale).clip(0, PERCENT).tolist()
    return percent
