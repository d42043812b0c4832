"""Instances and semantic classes -> one map of segments."""

import numpy as np
import numpy.typing as npt

from d2serve.detections import Detections, Panoptic, Segment
from d2serve.masks.paste import MaskRegion, label_regions, paste_masks


def combine(
    found: Detections,
    semantic: npt.NDArray[np.int32],
    overlap_threshold: float,
    stuff_area_limit: int,
    score_threshold: float,
) -> Panoptic:
    """Lays down the instances, the best first, and stuff where they leave pixels free.

    The same segments as `detectron2.modeling.meta_arch.panoptic_fpn
    .combine_semantic_and_instance_outputs`, the heuristic of Kirillov et al. 2019 (Panoptic
    Segmentation, section 6). Segments are numbered from 1 as they are laid down: things by falling
    score, then stuff by rising class index.

    Args:
        found: instances with masks, best first.
        semantic: Int32[H, W] stuff class indices of the picture's pixels; 0 stands for all things
            together and is never laid down.
        overlap_threshold: the share, 0..1, of an instance's pixels that may be taken already; an
            instance with more of them taken is left out, another loses them.
        stuff_area_limit: how many free pixels a stuff class needs at least. With 0 one without
            any is a segment too.
        score_threshold: the least score, 0..1, of an instance.

    Raises:
        ValueError: the instances have no masks.
    """
    if found.masks is None:
        raise ValueError("instances without masks cannot be combined")
    canvas = _Canvas(found.size_hw)
    count = int(np.count_nonzero(found.scores >= score_threshold))
    pasted = paste_masks(found.masks[:count], found.boxes_xyxy[:count], found.size_hw)
    for index, region in enumerate(pasted):
        if canvas.has_room_for(region, overlap_threshold):
            canvas.lay_down(region, int(found.classes[index]), float(found.scores[index]))
    for label, region in label_regions(semantic):
        if canvas.free_area(region) >= stuff_area_limit:
            canvas.lay_down(region, label)
    return Panoptic(canvas.ids, tuple(canvas.segments))


def stuff_alone(semantic: npt.NDArray[np.int32]) -> Panoptic:
    """Every class of an Int32[H, W] map of stuff class indices as a segment, class 0 too.

    A segment's id is its class index + 1.
    """
    ids = semantic + np.int32(1)
    segments = (Segment(label, label - 1, is_thing=False) for label, _ in label_regions(ids))
    return Panoptic(ids, tuple(segments))


class _Canvas:
    """A map on which segments are laid down one after the other, none over another."""

    def __init__(self, size_hw: tuple[int, int]) -> None:
        self.ids = np.zeros(size_hw, dtype=np.int32)
        self.segments: list[Segment] = []

    def free_area(self, region: MaskRegion) -> int:
        """How many pixels of the region are in no segment yet."""
        return int(np.count_nonzero(self._free(region)))

    def has_room_for(self, region: MaskRegion, overlap_threshold: float) -> bool:
        """Whether the region has pixels, and no larger share of them is taken."""
        area = int(np.count_nonzero(region.pixels))
        return area > 0 and (area - self.free_area(region)) / area <= overlap_threshold

    def lay_down(self, region: MaskRegion, class_index: int, score: float | None = None) -> None:
        """Makes a segment of the region's free pixels: a thing where there is a score."""
        segment = Segment(len(self.segments) + 1, class_index, score is not None, score)
        self.ids[region.window][self._free(region)] = segment.id
        self.segments.append(segment)

    def _free(self, region: MaskRegion) -> npt.NDArray[np.bool_]:
        return region.pixels & (self.ids[region.window] == 0)
