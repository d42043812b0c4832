"""Panoptic and semantic maps in COCO panoptic format."""

import base64
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from d2serve.detections import SCORE_DECIMALS
from d2serve.errors import not_acceptable
from d2serve.masks.panoptic import Panoptic, Segment, stuff_alone
from d2serve.masks.paste import MaskRegion, label_regions
from d2serve.metadata import ModelMetadata
from d2serve.outputs.result import Result, category_id, category_name

MAX_PNG_SIDE = 1_000_000


def segment_maps(result: Result) -> dict[str, Any]:
    """`panoptic` and `semantic`, each if the model has it.

    Each is a `png` as base64 and `segments_info`, https://cocodataset.org/#format-results. The ids
    of `semantic` are class indices + 1.
    """
    found = result.detections
    maps = {
        "panoptic": found.panoptic,
        "semantic": None if found.semantic is None else stuff_alone(found.semantic),
    }
    return {
        name: _coco_map(segments, result.model)
        for name, segments in maps.items()
        if segments is not None
    }


def id_png(ids: npt.NDArray[np.int32]) -> bytes:
    """Encode ids as an 8-bit RGB PNG: a pixel's id is R + 256 * G + 256 * 256 * B.

    `panopticapi.utils.rgb2id` reads it. OpenCV's own PNG settings are its fastest, and the files
    are small, because rows of maps are runs of one id.

    Args:
        ids: Int32[H, W] in 0..256 ** 3 - 1.

    Raises:
        RequestError: 406, the map is too long for libpng.
    """
    check_png_side(ids.shape)
    # The bytes of an id, lowest first, are red, green and blue; the fourth is always 0.
    bytes_of_ids = np.ascontiguousarray(ids, dtype="<i4").view(np.uint8).reshape(*ids.shape, 4)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(bytes_of_ids, cv2.COLOR_RGBA2BGR))
    return encoded.tobytes()


def check_png_side(size_hw: tuple[int, ...]) -> None:
    """Raise RequestError (406) if an image of this size is too long for libpng."""
    if max(size_hw) > MAX_PNG_SIDE:
        height, width = size_hw
        raise not_acceptable(
            f"the image is {width}x{height}, the limit of PNG maps is {MAX_PNG_SIDE} pixels a side",
            "accept application/x-npz",
        )


def _coco_map(panoptic: Panoptic, model: ModelMetadata) -> dict[str, Any]:
    segments = {segment.id: segment for segment in panoptic.segments}
    return {
        "png": base64.b64encode(id_png(panoptic.ids)).decode("ascii"),
        "segments_info": [
            _segment_info(segments[label], region, model)
            for label, region in label_regions(panoptic.ids)
        ],
    }


def _segment_info(segment: Segment, region: MaskRegion, model: ModelMetadata) -> dict[str, Any]:
    height, width = region.pixels.shape
    score = {} if segment.score is None else {"score": round(segment.score, SCORE_DECIMALS)}
    return {
        "id": segment.id,
        "category_id": category_id(segment, model),
        "name": category_name(segment, model),
        "isthing": segment.is_thing,
        "area": int(region.pixels.sum()),
        "bbox": [region.x, region.y, width, height],
        **score,
    }
