"""JSON responses as arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from d2serve.errors import PredictionError


@dataclass(frozen=True)
class Prediction:
    """Detections in one image, by descending score.

    Attributes:
        size_hw: the upright image's height and width in pixels.
        boxes_xyxy: Float64[N, 4], absolute pixels, origin at the top left.
        scores: Float64[N] in [0, 1], descending.
        classes: Int64[N] class indices.
        names: class names, one per detection.
        segmentations: COCO RLEs or polygons as received, one per detection; None without masks.
    """

    size_hw: tuple[int, int]
    boxes_xyxy: "np.ndarray[Any, np.dtype[np.float64]]"
    scores: "np.ndarray[Any, np.dtype[np.float64]]"
    classes: "np.ndarray[Any, np.dtype[np.int64]]"
    names: tuple[str, ...]
    segmentations: tuple[Any, ...] | None

    @classmethod
    def from_json(cls, image: Mapping[str, Any]) -> "Prediction":
        """Convert one object of the API's default format.

        Raises:
            PredictionError: the object reports an error.
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
        """Decode the masks to Bool[N, H, W]; polygons are filled as pycocotools does.

        Raises:
            ValueError: the response contains no masks.
        """
        if self.segmentations is None:
            raise ValueError(
                "the response contains no masks: the model has no mask head, or the request had "
                "the option masks=none"
            )
        masks = np.zeros((len(self), *self.size_hw), np.bool_)
        for mask, segmentation in zip(masks, self.segmentations, strict=True):
            mask[:] = _decode(segmentation, self.size_hw)
        return masks


def read_predictions(response: Mapping[str, Any]) -> list[Prediction]:
    """Convert the API's JSON response for one or several images.

    Raises:
        PredictionError: the response reports an error for one of the images.
    """
    return [Prediction.from_json(image) for image in response.get("predictions", [response])]


def _decode(segmentation: Any, size_hw: tuple[int, int]) -> Any:
    # An optional package: only masks need it.
    from pycocotools import mask as coco_mask

    if isinstance(segmentation, dict):
        return coco_mask.decode(segmentation)
    if not segmentation:
        return False
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, *size_hw)))
