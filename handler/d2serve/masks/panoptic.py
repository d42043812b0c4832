"""Combine instances and semantic classes to a panoptic map."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from d2serve.masks.paste import MaskRegion, label_regions, paste_masks


@dataclass(frozen=True)
class Segment:
    """One region of a panoptic map.

    Attributes:
        id: its value in the map, at least 1.
        class_index: index among the model's thing classes, or, if `is_thing` is False, among its
            stuff classes.
        is_thing: whether it is one countable object.
        score: of the instance, 0..1; None for stuff.
    """

    id: int
    class_index: int
    is_thing: bool
    score: float | None = None


@dataclass(frozen=True)
class Panoptic:
    """The segment of every pixel (Kirillov et al. 2019).

    Attributes:
        ids: Int32[H, W], the segment of each pixel; 0 for pixels without a segment.
        segments: the segments of the map, in the order in which they were added.
    """

    ids: npt.NDArray[np.int32]
    segments: tuple[Segment, ...]


class Instances(Protocol):
    """The fields of `Detections` that a panoptic map is built from."""

    @property
    def size_hw(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def boxes_xyxy(self) -> npt.NDArray[np.float32]: ...  # noqa: D102
    @property
    def scores(self) -> npt.NDArray[np.float32]: ...  # noqa: D102
    @property
    def classes(self) -> npt.NDArray[np.int64]: ...  # noqa: D102
    @property
    def masks(self) -> npt.NDArray[np.float32] | None: ...  # noqa: D102


def combine(
    instances: Instances,
    semantic: npt.NDArray[np.int32],
    overlap_threshold: float,
    stuff_area_limit: int,
    score_threshold: float,
) -> Panoptic:
    """Add the instances to a map, the best first, and then stuff to the pixels that remain free.

    The segments are those of `detectron2.modeling.meta_arch.panoptic_fpn
    .combine_semantic_and_instance_outputs`, the heuristic of Kirillov et al. 2019 (Panoptic
    Segmentation, section 6). They are numbered from 1: things by descending score, then stuff by
    ascending class index.

    Args:
        instances: with masks, best first.
        semantic: Int32[H, W] stuff class indices of the image's pixels; 0 represents all things and
            never becomes a segment.
        overlap_threshold: maximum share, 0..1, of an instance's pixels that belong to other
            segments. Instances above it are dropped, all others keep only their free pixels.
        stuff_area_limit: minimum number of free pixels of a stuff class; with 0 a class without
            free pixels is a segment too.
        score_threshold: minimum score, 0..1, of an instance.

    Raises:
        ValueError: the instances have no masks.
    """
    if instances.masks is None:
        raise ValueError("masks is None: instances without masks cannot be combined with stuff")
    canvas = _Canvas(instances.size_hw)
    best = int(np.count_nonzero(instances.scores >= score_threshold))
    pasted = paste_masks(instances.masks[:best], instances.boxes_xyxy[:best], instances.size_hw)
    for index, region in enumerate(pasted):
        if canvas.accepts(region, overlap_threshold):
            canvas.add(region, int(instances.classes[index]), float(instances.scores[index]))
    for label, region in label_regions(semantic):
        if canvas.free_area(region) >= stuff_area_limit:
            canvas.add(region, label)
    return Panoptic(canvas.ids, tuple(canvas.segments))


def stuff_alone(semantic: npt.NDArray[np.int32]) -> Panoptic:
    """Make a segment of every class of an Int32[H, W] map of stuff class indices, also of class 0.

    A segment's id is its class index + 1.
    """
    ids = semantic + np.int32(1)
    segments = (Segment(label, label - 1, is_thing=False) for label, _ in label_regions(ids))
    return Panoptic(ids, tuple(segments))


class _Canvas:
    """A panoptic map to which segments are added; a pixel belongs to the first one."""

    def __init__(self, size_hw: tuple[int, int]) -> None:
        self.ids = np.zeros(size_hw, dtype=np.int32)
        self.segments: list[Segment] = []

    def free_area(self, region: MaskRegion) -> int:
        """The number of pixels of the region that belong to no segment."""
        return int(np.count_nonzero(self._free(region)))

    def accepts(self, region: MaskRegion, overlap_threshold: float) -> bool:
        """Return whether the region has pixels, at most this share of them in other segments."""
        area = int(np.count_nonzero(region.pixels))
        return area > 0 and (area - self.free_area(region)) / area <= overlap_threshold

    def add(self, region: MaskRegion, class_index: int, score: float | None = None) -> None:
        """Add the region's free pixels as a segment: a thing if there is a score, else stuff."""
        segment = Segment(len(self.segments) + 1, class_index, score is not None, score)
        self.ids[region.window][self._free(region)] = segment.id
        self.segments.append(segment)

    def _free(self, region: MaskRegion) -> npt.NDArray[np.bool_]:
        return region.pixels & (self.ids[region.window] == 0)
