"""Converts detections with FiftyOne, supervision and pycocotools; prints JSON, and writes masks.

Arguments: URL of a server, an image, the file for the masks.
"""

import json
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

import fiftyone
import numpy as np
import numpy.typing as npt
import supervision
from pycocotools.coco import COCO

from d2serve.client import Client
from d2serve.detections import Detections
from d2serve.integrations.coco import to_coco_dataset
from d2serve.integrations.fiftyone import (
    annotate,
    to_fiftyone,
    to_fiftyone_keypoints,
    to_fiftyone_segmentation,
)
from d2serve.integrations.supervision import to_supervision, to_supervision_keypoints
from d2serve.masks.panoptic import Panoptic, Segment
from tests.integrations.samples import CLASS_NAMES, SIZE_HW, FakePredictor, sample

Masks = npt.NDArray[np.bool_]


def main(url: str, image: str, file: str) -> None:
    with Client(url) as client:
        [served] = client.predict([image])
    fake = sample(with_keypoints=True)
    masks = {
        "fiftyone_served": fiftyone_masks(served),
        "fiftyone_fake": fiftyone_masks(fake),
        "supervision": to_supervision(fake).mask,
        "coco_rle": coco_masks(served, "rle"),
        "coco_polygon": coco_masks(served, "polygon"),
        "panoptic": panoptic(),
        "semantic": semantic(),
    }
    np.savez(file, **masks)
    print(json.dumps({**labels(fake), **annotated(fake, image)}))


def labels(fake: Detections) -> dict[str, Any]:
    points, empty = to_supervision_keypoints(fake), fake.select([])
    boxes = to_supervision(fake.without_masks())
    plain = to_fiftyone(fake.without_masks())
    return {
        "supervision": {
            "xyxy": boxes.xyxy.tolist(),
            "confidence": boxes.confidence.tolist(),
            "names": boxes["class_name"].tolist(),
            "has_mask": boxes.mask is not None,
            "points": points.xy.tolist(),
            "seen": points.keypoint_confidence.tolist(),
            "annotated": draws(fake),
        },
        "fiftyone": {
            "boxes": [each.bounding_box for each in plain.detections],
            "names": [each.label for each in plain.detections],
            "confidence": [each.confidence for each in plain.detections],
            "points": [each.points for each in to_fiftyone_keypoints(fake).keypoints],
        },
        "empty": [len(to_fiftyone(empty).detections), len(to_supervision(empty))],
    }


def draws(fake: Detections) -> bool:
    """Return whether supervision's annotator changes an image."""
    blank = np.zeros((*SIZE_HW, 3), np.uint8)
    return bool(supervision.MaskAnnotator().annotate(blank.copy(), to_supervision(fake)).any())


def fiftyone_masks(detections: Detections) -> Masks:
    """The masks as FiftyOne renders them in the whole image."""
    height, width = detections.size_hw
    return np.array(
        [
            each.to_segmentation(frame_size=(width, height)).mask > 0
            for each in to_fiftyone(detections).detections
        ]
    )


def coco_masks(detections: Detections, mask_format: str) -> Masks:
    """The masks as pycocotools reads them from a dataset."""
    names = ("circle", "triangle", "square", "star", "cross", "ring")
    dataset = COCO()
    dataset.dataset = json.loads(
        json.dumps(to_coco_dataset([("a.png", detections)], names, mask_format=mask_format))
    )
    with redirect_stdout(sys.stderr):
        dataset.createIndex()
    found = dataset.loadAnns(dataset.getAnnIds())
    masks = np.array([dataset.annToMask(each) for each in found], np.bool_)
    if mask_format == "rle":
        assert [each["area"] for each in found] == masks.sum(axis=(1, 2)).tolist()
    return masks


def panoptic() -> npt.NDArray[np.int32]:
    """The segmentation of a map whose left half is a thing, and whose right half is stuff 3."""
    ids = np.ones(SIZE_HW, np.int32)
    ids[:, 32:] = 2
    found = Panoptic(ids, (Segment(1, 0, True, 0.9), Segment(2, 3, False)))
    return segmentation(panoptic=found)


def semantic() -> npt.NDArray[np.int32]:
    """The segmentation of a map whose columns have the stuff classes 0, 1, ..."""
    columns = np.arange(SIZE_HW[1], dtype=np.int32)
    return segmentation(semantic=np.broadcast_to(columns, SIZE_HW))


def segmentation(**maps: Any) -> npt.NDArray[np.int32]:
    empty = sample(with_masks=False).select([])
    mask: npt.NDArray[np.int32] = to_fiftyone_segmentation(replace(empty, **maps)).mask
    return mask


def annotated(fake: Detections, image: str) -> dict[str, Any]:
    """A dataset after `annotate`, without FiftyOne's database."""

    class Samples:
        """A collection of two samples, which `annotate` may iterate and save."""

        def __init__(self) -> None:
            self.samples = [fiftyone.Sample(filepath=image) for _ in range(3)]
            self.saved: list[Any] = []

        def iter_samples(self, progress: bool = False) -> Any:
            return iter(self.samples)

        def save_context(self) -> "Samples":
            return self

        def __enter__(self) -> "Samples":
            return self

        def __exit__(self, *_: object) -> None:
            return

        def save(self, each: Any) -> None:
            self.saved.append(each)

    samples, predictor = Samples(), FakePredictor(fake)
    count = annotate(samples, predictor, "found", score_threshold=0.65, batch_size=2)
    names = [[each.label for each in one["found"].detections] for one in samples.saved]
    points = len(samples.saved[0]["found_keypoints"].keypoints)
    assert set(names[0]) <= set(CLASS_NAMES)
    return {"annotated": {"count": count, "names": names, "points": points}}


if __name__ == "__main__":
    main(*sys.argv[1:])
