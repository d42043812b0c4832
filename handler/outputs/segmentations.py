"""The masks of a picture's detections, as COCO writes segmentations."""

from collections.abc import Iterator
from typing import Any

from handler.detections import Detections
from handler.masks.paste import MaskRegion, paste_mask
from handler.masks.polygons import encode_polygons
from handler.masks.rle import encode_rle


def segmentations(detections: Detections, encoding: str) -> list[Any]:
    """One compressed RLE object or list of polygons per instance; empty where there are no masks.

    Args:
        encoding: `rle` or `polygon`.
    """
    if encoding == "polygon":
        return [encode_polygons(region) for region in pasted_masks(detections)]
    return [encode_rle(region, detections.size_hw) for region in pasted_masks(detections)]


def pasted_masks(detections: Detections) -> Iterator[MaskRegion]:
    """Each instance's mask in the picture's pixels, one at a time; none where there are none."""
    if detections.masks is not None:
        for mask, box in zip(detections.masks, detections.boxes_xyxy, strict=True):
            yield paste_mask(mask, box, detections.size_hw)
