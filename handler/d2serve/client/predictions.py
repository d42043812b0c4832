"""JSON predictions as arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from d2serve.client.transport import PredictionError


@dataclass(frozen=True)
class Prediction:
    """What was found in one picture, best first.

    Attributes:
        size_hw: the upright picture's height and width in pixels.
        boxes_xyxy: Float64[N, 4] absolute pixels, (0, 0) the top left.
        scores: Float64[N] in 0..1, descending.
        classes: Int64[N] class indices.
        names: their names.
        segmentations: COCO RLEs or polygons as they came, one an instance; None without masks.
    """

    size_hw: tuple[int, int]
    boxes_xyxy: "np.ndarray[Any, np.dtype[np.float64]]"
    scores: "np.ndarray[Any, np.dtype[np.float64]]"
    classes: "np.ndarray[Any, np.dtype[np.int64]]"
    names: tuple[str, ...]
    segmentations: tuple[Any, ...] | None

    @classmethod
    def from_json(cls, image: Mapping[str, Any]) -> "Prediction":
        """One object of the API's default format.

        Raises:
            PredictionError: it tells of an error.
        """
        if error := image.get("error"):
            raise PredictionError(400, error["code"], error["message"], error.get("hint", ""))
        count = len(image["scores"])
        masks = image.get("masks")
        return cls(
            size_hw=(image["image"]["height"], image["image"]["width"]),
            boxes_xyxy=np.array(image["boxes"], np.float64).reshape(count, 4),
            scores=np.array(image["scores"], np.float64),
            classes=np.array(image["classes"], np.int64),
            names=tuple(image["names"]),
            segmentations=None if masks is None else tuple(masks),
        )

    def __len__(self) -> int:
        return len(self.scores)

    def masks(self) -> "np.ndarray[Any, np.dtype[np.bool_]]":
        """Bool[N, H, W]; polygons are filled as pycocotools does.

        Raises:
            ValueError: the answer holds no masks.
        """
        if self.segmentations is None:
            raise ValueError("there are no masks: the model has none, or masks=none was asked for")
        masks = np.zeros((len(self), *self.size_hw), np.bool_)
        for mask, segmentation in zip(masks, self.segmentations, strict=True):
            mask[:] = _decoded(segmentation, self.size_hw)
        return masks


def read_predictions(answer: Mapping[str, Any]) -> list[Prediction]:
    """The API's JSON of one image, or of several.

    Raises:
        PredictionError: an image could not be used.
    """
    return [Prediction.from_json(image) for image in answer.get("predictions", [answer])]


def _decoded(segmentation: Any, size_hw: tuple[int, int]) -> Any:
    if isinstance(segmentation, dict):
        return coco_mask.decode(segmentation)
    if not segmentation:
        return False
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, *size_hw)))
