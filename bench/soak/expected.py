"""Expected responses: detections in any format, drawn images and errors."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from bench.loadgen.client import MARK
from tests.goldens import comparison
from tests.goldens.comparison import pairs
from tests.serving import traffic
from tests.serving.traffic import mask_iou

Size = tuple[int, int]
Rle = Mapping[str, Any]
# Labels contain scores in whole percent, in which floating-point noise may change a digit.
MIN_SAME_PIXELS, MAX_SAME_DIFFERENCE = 0.995, 8


class Expected(NamedTuple):
    """A response: its status, and a function that returns what is wrong with a body, or ""."""

    status: int
    fault: Callable[[bytes], str]


class Tolerance(NamedTuple):
    """Largest difference in boxes and scores, and least IoU of masks."""

    box_px: float
    score: float
    mask_iou: float


# The tolerances of the tests, to goldens and between responses.
TO_GOLDEN, TO_RESPONSE = (
    Tolerance(tests.BOX_TOLERANCE_PX, tests.SCORE_TOLERANCE, tests.MIN_MASK_IOU)
    for tests in (comparison, traffic)
)


class Found(NamedTuple):
    """Instances: Float64[N, 4] boxes in pixels, Float64[N] scores, Int64[N] classes, and N masks as
    COCO RLE, or None where the format has none."""

    boxes_xyxy: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    masks: Sequence[Rle] | None

    @classmethod
    def of(cls, boxes: Any, scores: Any, classes: Any, masks: Sequence[Rle] | None) -> "Found":
        """From lists, which may be empty."""
        boxes_xyxy = np.array(boxes, dtype=np.float64).reshape(-1, 4)
        return cls(boxes_xyxy, np.array(scores, float), np.array(classes, np.int64), masks or None)


Read = Callable[[bytes, Size], Found]


def difference(expected: Found, found: Found, tolerance: Tolerance) -> str:
    """Describe how two sets of instances differ; "" where they are the same in any order."""
    count = len(expected.scores)
    if len(found.scores) != count:
        return f"{len(found.scores)} instances, expected {count}"
    matched = pairs(expected, found)
    if len(matched) < count:
        return f"{count - len(matched)} instances of another class or place"
    theirs, ours = (np.array([pair[side] for pair in matched], dtype=int) for side in (0, 1))
    box_px = np.abs(expected.boxes_xyxy[theirs] - found.boxes_xyxy[ours]).max(initial=0.0)
    if box_px > tolerance.box_px:
        return f"a box is {box_px:.3f} px off"
    score = np.abs(expected.scores[theirs] - found.scores[ours]).max(initial=0.0)
    if score > tolerance.score:
        return f"a score is {score:.5f} off"
    if expected.masks is None or found.masks is None:
        return ""
    overlaps = (mask_iou(dict(expected.masks[e]), dict(found.masks[f])) for e, f in matched)
    iou = min(overlaps, default=1.0)
    return "" if iou >= tolerance.mask_iou else f"a mask has an IoU of {iou:.3f}"


def read_golden(path: Path) -> Found:
    """Read a golden of Detectron2."""
    content = json.loads(path.read_text(encoding="utf-8"))
    boxes, masks = content["boxes_xyxy"], content.get("masks")
    return Found.of(boxes, content["scores"], content["classes"], masks)


def read_default(body: bytes, size_wh: Size) -> Found:
    """Read format `default`. Raises ValueError, KeyError or TypeError for another format, or for an
    image of another size."""
    content = json.loads(body)
    if content["image"] != {"width": size_wh[0], "height": size_wh[1]}:
        raise ValueError(f"the response is for an image of {content['image']}")
    return Found.of(content["boxes"], content["scores"], content["classes"], content["masks"])


def read_rows(body: bytes, size_wh: Size) -> Found:
    """Read format `clarify` or `application/x-npy`: [class, score, x1, y1, x2, y2] with 0..1 of the
    image's size; raises as `read_default`."""
    is_npy = body.startswith(b"\x93NUMPY")
    rows = np.load(io.BytesIO(body), allow_pickle=False) if is_npy else json.loads(body)
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return Found.of(table[:, 2:] * (size_wh * 2), table[:, 1], table[:, 0], None)


def read_tensors(body: bytes, _: Size) -> Found:
    """Read tensors of the Open Inference Protocol; raises as `read_default`."""
    tensors = {tensor["name"]: tensor["data"] for tensor in json.loads(body)["outputs"]}
    masks = [json.loads(text) for text in tensors.get("masks", [])]
    return Found.of(tensors["boxes"], tensors["scores"], tensors["classes"], masks)


def detected(read: Read, size_wh: Size, found: Found, tolerance: Tolerance) -> Expected:
    """A response with these instances."""

    def fault(body: bytes) -> str:
        try:
            return difference(found, read(body, size_wh), tolerance)
        except (ValueError, KeyError, TypeError, EOFError) as error:
            return f"unreadable: {type(error).__name__}: {error}"

    return Expected(200, fault)


def marked(inner: Expected) -> Expected:
    """A response that also has the request's own `id`."""

    def fault(body: bytes) -> str:
        own = _object(body).get("id") == MARK.decode()
        return inner.fault(body) if own else "the response to another request"

    return Expected(inner.status, fault)


def drawn(expected: bytes) -> Expected:
    """An image with instances drawn on it."""

    def fault(body: bytes) -> str:
        try:
            images = [Image.open(io.BytesIO(each)).convert("RGB") for each in (expected, body)]
        except OSError as error:
            return f"not an image: {error}"
        one, other = (np.asarray(image).astype(np.int16) for image in images)
        if one.shape != other.shape:
            return f"an image of {other.shape}, expected {one.shape}"
        same = float((np.abs(one - other).max(axis=2) <= MAX_SAME_DIFFERENCE).mean())
        return "" if same >= MIN_SAME_PIXELS else f"{1 - same:.1%} of the pixels differ"

    return Expected(200, fault)


def refused(status: int, code: str | None) -> Expected:
    """An error of the contract; without a code, one of TorchServe for what is not HTTP."""

    def fault(body: bytes) -> str:
        found = error_code(body)
        return "" if code in (None, found) else f"the error {found!r}, expected {code!r}"

    return Expected(status, fault)


def error_code(body: bytes) -> str:
    """Code of an error in the contract's form; "" for any other body."""
    error = _object(body).get("error")
    if not isinstance(error, dict) or sorted(error) != ["code", "hint", "message"]:
        return ""
    complete = all(isinstance(text, str) and text for text in error.values())
    return str(error["code"]) if complete else ""


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
