"""Panoptic and semantic maps, as COCO writes panoptic results."""

import base64
from typing import Any

from handler.detections import Panoptic, Segment
from handler.masks.panoptic import stuff_alone
from handler.masks.paste import MaskRegion
from handler.masks.regions import label_regions
from handler.model_facts import ModelFacts
from handler.outputs.categories import category_id, category_name
from handler.outputs.formats.result import Result
from handler.outputs.id_png import id_png
from handler.outputs.numbers import rounded_share


def segment_maps(result: Result) -> dict[str, Any]:
    """`panoptic` and `semantic`, each where the model has it.

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


def _coco_map(panoptic: Panoptic, model: ModelFacts) -> dict[str, Any]:
    segments = {segment.id: segment for segment in panoptic.segments}
    return {
        "png": base64.b64encode(id_png(panoptic.ids)).decode("ascii"),
        "segments_info": [
            _segment_info(segments[label], region, model)
            for label, region in label_regions(panoptic.ids)
        ],
    }


def _segment_info(segment: Segment, region: MaskRegion, model: ModelFacts) -> dict[str, Any]:
    height, width = region.pixels.shape
    return {
        "id": segment.id,
        "category_id": category_id(segment, model),
        "name": category_name(segment, model),
        "isthing": segment.is_thing,
        "area": int(region.pixels.sum()),
        "bbox": [region.x, region.y, width, height],
        **({} if segment.score is None else {"score": rounded_share(segment.score)}),
    }
