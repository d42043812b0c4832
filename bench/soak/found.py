"""What an answer says was found in a picture, whatever its form, and whether it is the same."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.goldens import comparison
from tests.goldens.comparison import pairs
from tests.serving import traffic
from tests.serving.traffic import mask_iou

Size = tuple[int, int]
Rle = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """The instances of one picture.

    Attributes:
        boxes_xyxy: float64[N, 4] in pixels.
        scores: float64[N], 0..1.
        classes: int64[N].
        masks: N masks as COCO RLE; None where the answer's form has none.
    """

    boxes_xyxy: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    masks: Sequence[Rle] | None

    @classmethod
    def of(cls, boxes: Any, scores: Any, classes: Any, masks: Sequence[Rle] | None) -> "Found":
        """From nested lists, which may be empty."""
        return cls(
            np.array(boxes, dtype=np.float64).reshape(-1, 4),
            np.array(scores, dtype=np.float64),
            np.array(classes, dtype=np.int64),
            masks,
        )


@dataclass(frozen=True)
class Tolerance:
    """How far the same instances may be apart: floating-point noise of batches, or more."""

    box_px: float
    score: float
    mask_iou: float


# As the tests hold answers to goldens, and answers to each other.
TO_GOLDEN = Tolerance(
    comparison.BOX_TOLERANCE_PX, comparison.SCORE_TOLERANCE, comparison.LEAST_MASK_IOU
)
TO_ANSWER = Tolerance(traffic.BOX_TOLERANCE_PX, traffic.SCORE_TOLERANCE, traffic.LEAST_MASK_IOU)


def difference(expected: Found, found: Found, tolerance: Tolerance) -> str:
    """What is wrong with the second one, in a few words; "" if they are the same."""
    if len(found.scores) != len(expected.scores):
        return f"{len(found.scores)} instances in place of {len(expected.scores)}"
    matched = pairs(expected, found)
    if len(matched) < len(expected.scores):
        return f"{len(expected.scores) - len(matched)} instances of another class or place"
    theirs, ours = (np.array([pair[side] for pair in matched], dtype=int) for side in (0, 1))
    box_px = np.abs(expected.boxes_xyxy[theirs] - found.boxes_xyxy[ours]).max(initial=0.0)
    if box_px > tolerance.box_px:
        return f"a box is {box_px:.3f} px off"
    score = np.abs(expected.scores[theirs] - found.scores[ours]).max(initial=0.0)
    if score > tolerance.score:
        return f"a score is {score:.5f} off"
    iou = _worst_mask(expected.masks, found.masks, matched)
    return "" if iou >= tolerance.mask_iou else f"a mask has an IoU of {iou:.3f}"


def _worst_mask(
    expected: Sequence[Rle] | None, found: Sequence[Rle] | None, matched: Sequence[tuple[int, int]]
) -> float:
    if expected is None or found is None:
        return 1.0
    overlaps = (mask_iou(dict(expected[e]), dict(found[f])) for e, f in matched)
    return min(overlaps, default=1.0)


def read_golden(path: Path) -> Found:
    """Upstream's answer."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return Found.of(
        content["boxes_xyxy"], content["scores"], content["classes"], content.get("masks")
    )


def read_default(body: bytes, size_wh: Size) -> Found:
    """Format `default`.

    Raises:
        ValueError, KeyError, TypeError: it is none, or of a picture of another size.
    """
    content = json.loads(body)
    if content["image"] != {"width": size_wh[0], "height": size_wh[1]}:
        raise ValueError(f"the answer is of a picture of {content['image']}")
    return Found.of(
        content["boxes"], content["scores"], content["classes"], content["masks"] or None
    )


def read_coco(body: bytes, _: Size) -> Found:
    """Format `coco`; raises as `read_default`."""
    results = json.loads(body)
    xywh = np.array([result["bbox"] for result in results], dtype=np.float64).reshape(-1, 4)
    return Found.of(
        np.hstack((xywh[:, :2], xywh[:, :2] + xywh[:, 2:])),
        [result["score"] for result in results],
        [result["category_id"] for result in results],
        [result["segmentation"] for result in results if "segmentation" in result] or None,
    )


def read_clarify(body: bytes, size_wh: Size) -> Found:
    """Format `clarify`; raises as `read_default`."""
    return _rows(json.loads(body), size_wh)


def read_npy(body: bytes, size_wh: Size) -> Found:
    """`application/x-npy`; raises as `read_default`."""
    return _rows(np.load(io.BytesIO(body), allow_pickle=False), size_wh)


def read_tensors(body: bytes, _: Size) -> Found:
    """The Open Inference Protocol's tensors; raises as `read_default`."""
    tensors = {tensor["name"]: tensor["data"] for tensor in json.loads(body)["outputs"]}
    masks = [json.loads(text) for text in tensors.get("masks", [])]
    return Found.of(tensors["boxes"], tensors["scores"], tensors["classes"], masks or None)


def _rows(rows: Any, size_wh: Size) -> Found:
    """[class, score, x1, y1, x2, y2] with 0..1 of the picture's size."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return Found.of(table[:, 2:] * (size_wh * 2), table[:, 1], table[:, 0], None)
