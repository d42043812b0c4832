"""Convert the API's JSON to `Detections`."""

import base64
import json
from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from d2serve.client.transport import Reply, error_from_body
from d2serve.detections import Detections
from d2serve.errors import PredictionError
from d2serve.masks.decoding import decode_polygons, decode_rles
from d2serve.masks.densepose import StoredSurfaces, SurfaceMap
from d2serve.masks.panoptic import Panoptic, Segment
from d2serve.masks.runs import Runs

# The signature, and the length and type of the first chunk, which begins with the size.
PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


def read_entries(reply: Reply) -> list[Mapping[str, Any]]:
    """The JSON object of each image of a response, which may report an error.

    Raises:
        PredictionError: the response is not one of the API's default format.
    """
    content = reply.json()
    entries = content.get("predictions", [content]) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise reply.not_a_prediction()
    return entries


def results_of(
    entries: Sequence[Mapping[str, Any]], class_count: int
) -> list[Detections | PredictionError]:
    """Convert the objects of a response's images, see `error_of` and `detections_of`."""
    return [error_of(entry) or detections_of(entry, class_count) for entry in entries]


def error_of(entry: Mapping[str, Any]) -> PredictionError | None:
    """The error that an image's object reports, or None."""
    return error_from_body(400, json.dumps(entry)) if "error" in entry else None


def detections_of(entry: Mapping[str, Any], class_count: int = 0) -> Detections:
    """Convert an image's object of the API's default format.

    Args:
        entry: the object; it reports no error.
        class_count: number of the model's instance classes, needed for panoptic maps only.

    Raises:
        PredictionError: the object is damaged.
    """
    try:
        return _detections(entry, class_count)
    except (LookupError, TypeError, ValueError, OverflowError, cv2.error) as error:
        problem = f"the response cannot be read: {type(error).__name__}: {error}"
        raise PredictionError(0, "no_prediction", problem) from error


def needs_class_count(entry: Mapping[str, Any]) -> bool:
    """Return whether `detections_of` needs the number of classes."""
    return "panoptic" in entry


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and ("error" in entry or "scores" in entry)


def _detections(entry: Mapping[str, Any], class_count: int) -> Detections:
    size_hw = (index(entry["image"]["height"]), index(entry["image"]["width"]))
    if min(size_hw) < 1:
        raise ValueError(f"the image has {size_hw[1]}x{size_hw[0]} pixels; expected at least 1x1")
    count = len(entry["scores"])
    keypoints, mask_scores = entry.get("keypoints"), entry.get("mask_scores")
    return Detections(
        size_hw=size_hw,
        boxes_xyxy=np.array(entry["boxes"], np.float32).reshape(count, 4),
        scores=np.array(entry["scores"], np.float32),
        classes=np.array(entry["classes"], np.int64),
        # The list is empty if the model has no masks.
        mask_runs=_masks(entry["masks"], size_hw) if len(entry["masks"]) == count else None,
        mask_scores=None if mask_scores is None else np.array(mask_scores, np.float32),
        keypoints=None if keypoints is None else _keypoints(keypoints, count),
        surfaces=_surfaces(entry["densepose"], size_hw) if "densepose" in entry else None,
        semantic=_ids(entry["semantic"], size_hw) - 1 if "semantic" in entry else None,
        panoptic=_panoptic(entry, size_hw, class_count) if "panoptic" in entry else None,
        class_names=tuple(entry["names"]),
    )


def _masks(masks: Sequence[Any], size_hw: tuple[int, int]) -> Runs:
    are_polygons = bool(masks) and isinstance(masks[0], list)
    return decode_polygons(masks, size_hw) if are_polygons else decode_rles(masks, size_hw)


def _keypoints(keypoints: Sequence[Any], count: int) -> npt.NDArray[np.float32]:
    return np.array(keypoints, np.float32).reshape(count, -1 if count else 0, 3)


def _surfaces(maps: Sequence[Mapping[str, Any]], size_hw: tuple[int, int]) -> StoredSurfaces:
    return StoredSurfaces(tuple(_surface_map(content, size_hw) for content in maps))


def _surface_map(content: Mapping[str, Any], size_hw: tuple[int, int]) -> SurfaceMap:
    x, y, width, height = map(index, content["box"])
    if not (0 <= x <= size_hw[1] - width and 0 <= y <= size_hw[0] - height):
        raise ValueError(f"the box {content['box']} is not inside the image")
    blue_green_red = _png_pixels(content, (height, width))
    return SurfaceMap(x, y, np.ascontiguousarray(blue_green_red[:, :, ::-1].transpose(2, 0, 1)))


def _panoptic(entry: Mapping[str, Any], size_hw: tuple[int, int], class_count: int) -> Panoptic:
    content = entry["panoptic"]
    segments = (_segment(info, class_count) for info in content["segments_info"])
    return Panoptic(_ids(content, size_hw), tuple(segments))


def _segment(info: Mapping[str, Any], class_count: int) -> Segment:
    # Stuff classes are numbered after the instance classes.
    offset = 0 if info["isthing"] else class_count
    return Segment(info["id"], info["category_id"] - offset, info["isthing"], info.get("score"))


def _ids(content: Mapping[str, Any], size_hw: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Int32[H, W] of a map in COCO panoptic format: R + 256 * G + 256 * 256 * B."""
    return _png_pixels(content, size_hw).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


def _png_pixels(content: Mapping[str, Any], size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """UInt8[H, W, 3] blue, green, red."""
    encoded = base64.b64decode(content["png"], validate=True)
    # A small file can declare a huge image, so the size in its header is compared first.
    is_map = encoded.startswith(PNG_START) and _png_size_hw(encoded) == size_hw
    pixels = np.frombuffer(encoded, np.uint8)
    image = cv2.imdecode(pixels, cv2.IMREAD_COLOR) if is_map else None
    if image is None:
        raise ValueError(f"a map is not a PNG of {size_hw[1]}x{size_hw[0]} pixels")
    return np.asarray(image, np.uint8)


def _png_size_hw(encoded: bytes) -> tuple[int, int]:
    return int.from_bytes(encoded[20:24], "big"), int.from_bytes(encoded[16:20], "big")
