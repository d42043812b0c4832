"""Detections with difficult masks, and a predictor that returns them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from d2serve.detections import Detections
from d2serve.masks.runs import Runs

SIZE_HW = (48, 64)
CLASS_NAMES = ("cat", "traffic light", "dog")
KEYPOINTS = ("head", "tail")
HIDDEN = 0.01


def masks() -> npt.NDArray[np.bool_]:
    """Bool[5, 48, 64]: a hole, two parts, rows of the image's whole width, a corner, all pixels."""
    dense = np.zeros((5, *SIZE_HW), np.bool_)
    dense[0, 5:20, 5:30], dense[0, 10:15, 10:20] = True, False
    dense[1, 2:9, 40:50], dense[1, 30:41, 10:33] = True, True
    dense[2, 20:24] = True
    dense[3, -1, -1] = True
    dense[4] = True
    return dense


def sample(*, with_masks: bool = True, with_keypoints: bool = False) -> Detections:
    """Five instances of the classes in CLASS_NAMES."""
    dense = masks()
    boxes = [_box(mask) for mask in dense]
    classes = np.array([0, 1, 2, 0, 1])
    center = np.array([(x1 + x2, y1 + y2) for x1, y1, x2, y2 in boxes]) / 2
    seen = [(*center[i], 0.9) for i in range(len(boxes))]
    hidden = [(x1, y1, HIDDEN) for x1, y1, _, _ in boxes]
    return Detections(
        size_hw=SIZE_HW,
        boxes_xyxy=np.array(boxes, np.float32),
        scores=np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32),
        classes=classes,
        mask_runs=Runs.of([_bounds(mask) for mask in dense], SIZE_HW) if with_masks else None,
        keypoints=np.array([*zip(seen, hidden, strict=True)], np.float32)
        if with_keypoints
        else None,
        class_names=tuple(CLASS_NAMES[index] for index in classes),
    )


@dataclass
class FakePredictor:
    """Returns the same detections for each image, filtered by the options.

    Attributes:
        detections: of each image.
        images: the images of all calls.
    """

    detections: Detections
    class_names: tuple[str, ...] = CLASS_NAMES
    images: list[Any] = field(default_factory=list)

    def predict(
        self,
        images: Any,
        *,
        score_threshold: float | None = None,
        classes: Iterable[str | int] | None = None,
    ) -> list[Detections]:
        """The detections of each image."""
        self.images += images
        names = self.class_names if classes is None else tuple(classes)
        keep = self.detections.scores >= np.float32(score_threshold or 0)
        keep &= np.isin(self.detections.class_names, names)
        return [self.detections.select(keep) for _ in images]

    def close(self) -> None:
        """Do nothing."""


def _box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def _bounds(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The bounds of `Runs`: where the pixels change along the columns."""
    changes = np.diff(mask.T.ravel().astype(np.int8), prepend=0, append=0)
    return np.flatnonzero(changes).astype(np.int64)
