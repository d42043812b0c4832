"""The masks of a picture's detections, as COCO writes segmentations."""

from typing import Any

from handler.detections import Detections
from handler.masks.paste import regions
from handler.masks.polygons import encode_polygons
from handler.masks.rle import encode_rles
from handler.masks.runs import paste_runs


def segmentations(detections: Detections, encoding: str) -> list[Any]:
    """One compressed RLE object or list of polygons per instance; empty where there are no masks.

    Args:
        encoding: `rle` or `polygon`.
    """
    if detections.masks is None:
        return []
    runs = paste_runs(detections.masks, detections.boxes_xyxy, detections.size_hw)
    if encoding == "polygon":
        return [encode_polygons(region) for region in regions(runs)]
    return list(encode_rles(runs))
