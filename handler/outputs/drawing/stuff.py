"""Stuff on a picture."""

from collections.abc import Iterator
from dataclasses import dataclass

from handler.detections import Detections, Panoptic
from handler.masks.panoptic import stuff_alone
from handler.masks.paste import MaskRegion
from handler.masks.regions import label_regions


@dataclass(frozen=True)
class Stuff:
    """One stuff class, and where it is in the picture."""

    class_index: int
    region: MaskRegion


def stuff_of(detections: Detections) -> Iterator[Stuff]:
    """The stuff of the panoptic map, else every class of the semantic one; one at a time."""
    segments = _segments(detections)
    if segments is not None:
        classes = {each.id: each.class_index for each in segments.segments if not each.is_thing}
        for label, region in label_regions(segments.ids):
            if label in classes:
                yield Stuff(classes[label], region)


def _segments(detections: Detections) -> Panoptic | None:
    if detections.panoptic is None and detections.semantic is not None:
        return stuff_alone(detections.semantic)
    return detections.panoptic
