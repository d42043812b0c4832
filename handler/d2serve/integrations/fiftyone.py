"""Detections for FiftyOne: labels of one image, and of all samples of a dataset."""

import logging
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from d2serve.detections import Detections
from d2serve.integrations.optional import require_library
from d2serve.integrations.predictor import PREDICTION_ERRORS, Predictor
from d2serve.masks.paste import MaskRegion

if TYPE_CHECKING:
    import fiftyone

logger = logging.getLogger(__name__)
# FiftyOne rounds corners down, so that one on the border of two pixels may lose the second one.
NUDGE_PX = 1e-6


def to_fiftyone(detections: Detections) -> "fiftyone.Detections":
    """Convert the instances of one image.

    FiftyOne stretches a mask over its box. The box of an instance with a mask is therefore extended
    to whole pixels, and to the pixels of the mask, so that the mask keeps every pixel.

    Args:
        detections: of one image.

    Returns:
        One `fiftyone.Detection` per instance with `label`, `confidence`, `bounding_box` (x, y,
        width, height in 0..1) and, if there are masks, `mask`, Bool[h, w] over the box.

    Raises:
        CommandError: fiftyone is not installed.

    Examples:
        >>> [detections] = model.predict("street.jpg")  # doctest: +SKIP
        >>> sample["predictions"] = to_fiftyone(detections)  # doctest: +SKIP
    """
    library = require_library("fiftyone")
    boxes: npt.NDArray[np.floating] = detections.boxes_xyxy
    masks: list[Any] = [None] * len(detections)
    if detections.has_masks:
        pairs = zip(detections.boxes_xyxy, detections.mask_regions(), strict=True)
        windows = [_window(box, region, detections.size_hw) for box, region in pairs]
        boxes = np.reshape([_box(window) for window in windows], (-1, 4)) + NUDGE_PX
        masks = [window.pixels for window in windows]
    labels = [
        library.Detection(label=name, confidence=score, bounding_box=box, mask=mask)
        for name, score, box, mask in zip(
            detections.class_names,
            detections.scores.tolist(),
            _relative_xywh(boxes, detections.size_hw),
            masks,
            strict=True,
        )
    ]
    return library.Detections(detections=labels)


def to_fiftyone_keypoints(detections: Detections) -> "fiftyone.Keypoints":
    """Convert the keypoints of one image: one `fiftyone.Keypoint` per instance.

    Its points are relative to the image, its `confidence` are the scores of the points.

    Raises:
        CommandError: fiftyone is not installed.
        ValueError: the model has no keypoints.
    """
    if detections.keypoints is None:
        raise ValueError("keypoints is None: the model has no keypoints; use to_fiftyone")
    library = require_library("fiftyone")
    height, width = detections.size_hw
    points = detections.keypoints[..., :2].astype(np.float64) / (width, height)
    labels = [
        library.Keypoint(label=name, points=list(map(tuple, each)), confidence=scores)
        for name, each, scores in zip(
            detections.class_names,
            points.tolist(),
            detections.keypoints[..., 2].tolist(),
            strict=True,
        )
    ]
    return library.Keypoints(keypoints=labels)


def to_fiftyone_segmentation(detections: Detections) -> "fiftyone.Segmentation":
    """Convert the semantic map, or else the stuff of the panoptic map, of one image.

    The value of a pixel is its stuff class + 1; 0 is FiftyOne's background. `mask_targets` of a
    dataset assigns the names.

    Raises:
        CommandError: fiftyone is not installed.
        ValueError: the model has neither map.
    """
    values = np.zeros(detections.size_hw, np.int32)
    if detections.semantic is not None:
        values += detections.semantic + 1
    elif detections.panoptic is not None:
        for segment in detections.panoptic.segments:
            if not segment.is_thing:
                values[detections.panoptic.ids == segment.id] = segment.class_index + 1
    else:
        raise ValueError("the model has no semantic or panoptic map; use to_fiftyone")
    return require_library("fiftyone").Segmentation(mask=values)


def annotate(
    samples: "fiftyone.core.collections.SampleCollection",
    predictor: Predictor,
    label_field: str = "predictions",
    *,
    score_threshold: float | None = None,
    classes: Iterable[str | int] | None = None,
    batch_size: int = 16,
) -> int:
    """Store a model's labels in all samples of a dataset or view.

    Keypoints are stored in `LABEL_FIELD_keypoints`, a semantic or panoptic map in
    `LABEL_FIELD_segmentation`. An image that cannot be used is logged, and its sample stays as it
    is.

    Args:
        samples: of images.
        predictor: a `d2serve.Model` or a `d2serve.Client`.
        label_field: field of the instances.
        score_threshold: minimum score; by default the network's own threshold.
        classes: names or indices of the classes to keep; by default all.
        batch_size: number of images per call of the predictor.

    Returns:
        The number of annotated samples.

    Raises:
        CommandError: fiftyone is not installed.
    """
    chosen = {
        "score_threshold": score_threshold,
        "classes": None if classes is None else [*classes],
    }
    iterator = iter(samples.iter_samples(progress=True))
    annotated = 0
    with samples.save_context() as context:
        while batch := list(islice(iterator, batch_size)):
            for sample, detections in _predict(predictor, batch, chosen):
                for suffix, label in _labels(detections):
                    sample[label_field + suffix] = label
                context.save(sample)
                annotated += 1
    return annotated


def _predict(
    predictor: Predictor, samples: list[Any], options: dict[str, Any]
) -> Iterator[tuple[Any, Detections]]:
    """Yield the samples whose images can be used, each with its detections."""
    try:
        results = predictor.predict([sample.filepath for sample in samples], **options)
    except PREDICTION_ERRORS as error:
        if len(samples) == 1:
            logger.warning("%s is not annotated: %s", samples[0].filepath, error)
            return
        for sample in samples:
            yield from _predict(predictor, [sample], options)
        return
    yield from zip(samples, results, strict=True)


def _labels(detections: Detections) -> Iterator[tuple[str, Any]]:
    """Yield the suffix of the field and the label of each kind of result."""
    yield "", to_fiftyone(detections)
    if detections.keypoints is not None:
        yield "_keypoints", to_fiftyone_keypoints(detections)
    if detections.semantic is not None or detections.panoptic is not None:
        yield "_segmentation", to_fiftyone_segmentation(detections)


def _window(
    box_xyxy: npt.NDArray[np.float32], region: MaskRegion, size_hw: tuple[int, int]
) -> MaskRegion:
    """The mask over the whole pixels of its box and of itself."""
    x1, y1 = np.floor(box_xyxy[:2]).astype(int)
    x2, y2 = np.ceil(box_xyxy[2:]).astype(int)
    height, width = region.pixels.shape
    if region.pixels.size:
        x1, y1 = min(x1, region.x), min(y1, region.y)
        x2, y2 = max(x2, region.x + width), max(y2, region.y + height)
    full = region.full(size_hw)
    return MaskRegion(full[y1:y2, x1:x2].copy(), int(x1), int(y1))


def _box(window: MaskRegion) -> tuple[int, int, int, int]:
    height, width = window.pixels.shape
    return window.x, window.y, window.x + width, window.y + height


def _relative_xywh(
    boxes_xyxy: npt.NDArray[np.floating], size_hw: tuple[int, int]
) -> list[list[float]]:
    height, width = size_hw
    corners = boxes_xyxy.astype(np.float64) / (width, height, width, height)
    xywh: list[list[float]] = np.hstack((corners[:, :2], corners[:, 2:] - corners[:, :2])).tolist()
    return xywh
