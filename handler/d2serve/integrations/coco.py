"""COCO datasets with a model's detections as pre-labels, which most labelling tools import."""

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

import numpy as np

from d2serve.detections import Detections
from d2serve.integrations.keypoints import MIN_KEYPOINT_SCORE, keypoint_names

# COCO's visibility of a keypoint: not labelled, hidden, visible.
UNLABELLED, VISIBLE = 0, 2


def to_coco_dataset(
    items: Iterable[tuple[str, Detections]],
    class_names: Sequence[str],
    *,
    mask_format: str = "polygon",
    keypoints: Sequence[str] = (),
) -> dict[str, Any]:
    """Create a dataset that `pycocotools.coco.COCO` and the importers of labelling tools read.

    Ids of images, annotations and categories start at 1. `area` is that of the mask, or of the box
    without one; `score` is an extension that tools ignore.

    Args:
        items: the file name and the detections of each image.
        class_names: names of all classes of the model, in the order of the class indices.
        mask_format: `polygon`, which all tools read, without holes; or `rle`, exact.
        keypoints: names of the keypoints in the model's order; by default COCO's for a model whose
            only class is `person`.

    Raises:
        CommandError: the model has keypoints without names.
        ValueError: the format is unknown.

    Examples:
        >>> with d2serve.Client("http://127.0.0.1:8080") as client:  # doctest: +SKIP
        ...     found = [(file.name, client.predict([file])[0]) for file in files]
        ...     dataset = to_coco_dataset(found, client.class_names)
    """
    if mask_format not in ("polygon", "rle"):
        raise ValueError(f"mask_format is {mask_format!r}; use polygon or rle")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    names: tuple[str, ...] = ()
    ids = count(1)
    for image_id, (file_name, detections) in enumerate(items, start=1):
        height, width = detections.size_hw
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        if detections.keypoints is not None:
            names = names or keypoint_names(keypoints, class_names)
        annotations += (
            {"id": next(ids), **annotation}
            for annotation in _annotations(detections, image_id, mask_format)
        )
    return {
        "info": {"description": "Predictions of d2serve"},
        "images": images,
        "annotations": annotations,
        "categories": _categories(class_names, names),
    }


def _categories(class_names: Sequence[str], keypoints: Sequence[str]) -> list[dict[str, Any]]:
    points = {"keypoints": list(keypoints), "skeleton": []} if keypoints else {}
    return [
        {"id": category_id, "name": name, "supercategory": "", **points}
        for category_id, name in enumerate(class_names, start=1)
    ]


def _annotations(
    detections: Detections, image_id: int, mask_format: str
) -> Iterable[dict[str, Any]]:
    category_ids = range(1, int(detections.classes.max(initial=0)) + 2)
    found = detections.to_coco(image_id, category_ids, mask_format)
    regions = detections.mask_regions() if detections.has_masks else [None] * len(found)
    for annotation, region in zip(found, regions, strict=True):
        _, _, width, height = annotation["bbox"]
        annotation["area"] = width * height if region is None else int(region.pixels.sum())
        annotation["iscrowd"] = 0
        if "keypoints" in annotation:
            annotation |= _visible_keypoints(annotation["keypoints"])
        yield annotation


def _visible_keypoints(results: Sequence[float]) -> dict[str, Any]:
    """x, y and visibility of each keypoint: those with a low score are not labelled."""
    points = np.reshape(results, (-1, 3))
    seen = points[:, 2] >= MIN_KEYPOINT_SCORE
    points[:, 2] = np.where(seen, VISIBLE, UNLABELLED)
    points[~seen] = 0
    return {"keypoints": points.ravel().tolist(), "num_keypoints": int(seen.sum())}
