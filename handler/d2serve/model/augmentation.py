"""Test-time augmentation of R-CNNs (`detectron2.modeling.test_time_augmentation`)."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from d2serve.model.augmentation_config import AugmentationConfig
from d2serve.model.meta_arch import GeneralizedRCNN
from d2serve.model.nms import ScoredBoxes, select_best
from d2serve.model.preprocessing import padded_size
from d2serve.model.roi_heads import pooling_maps
from d2serve.model.structures import (
    Instances,
    ModelOutput,
    SizeHW,
    clip,
    image_indices,
    limits,
    scale_factors,
)

Features: TypeAlias = dict[str, Tensor]
# Lower scores are not merged, as in Detectron2.
MIN_SCORE = 1e-8


class AugmentedInference:
    """Runs images at several sizes, flipped too, and merges the results as Detectron2 does.

    The boxes of an image's versions are merged by class-wise NMS. The masks of these boxes are the
    means of the probabilities that the versions give them.

    Args:
        network: with a box head and optionally a mask head.
        config: the versions.
        resize: returns UInt8[C, H, W] in another height and width, on the network's device.
        max_kept_pixels: the number of padded pixels whose features are kept for the masks; those
            of further versions are computed twice. It limits the memory, not the results.
    """

    def __init__(
        self,
        network: GeneralizedRCNN,
        config: AugmentationConfig,
        resize: Callable[[Tensor, SizeHW], Tensor],
        max_kept_pixels: int,
    ) -> None:
        self.network = network
        self.config = config
        self.resize = resize
        self.max_kept_pixels = max_kept_pixels

    @torch.inference_mode()
    def __call__(
        self, images: Sequence[Tensor], original_sizes_hw: Sequence[SizeHW]
    ) -> list[ModelOutput]:
        """Run a batch of images; the output is in their pixels.

        Args:
            images: UInt8[C, H, W] each in 0..255, not resized, channels in the order of
                INPUT.FORMAT.
            original_sizes_hw: their heights and widths.
        """
        with self.network.arithmetic():
            versions = list(self._versions(original_sizes_hw))
            detected, kept = self._detect(images, versions)
            merged = self._merge(detected, original_sizes_hw)
            if self.network.roi_heads.mask_head is not None:
                masks = self._average_masks(images, versions, kept, merged)
                merged = replace(merged, masks=masks)
        return [ModelOutput(image) for image in merged.by_image()]

    def _versions(self, original_sizes_hw: Sequence[SizeHW]) -> Iterator["Version"]:
        resized = [self.config.resized(size_hw) for size_hw in original_sizes_hw]
        for sizes_hw in zip(*resized, strict=True):
            yield Version(sizes_hw, original_sizes_hw, self.config.flip)

    def _extract(self, images: Sequence[Tensor], version: "Version") -> Features:
        resized = list(map(self.resize, images, version.sizes_hw))
        flipped = [image.flip(-1) for image in resized] if version.flip else []
        return self.network.extract([*resized, *flipped])

    def _padded_pixels(self, version: "Version") -> int:
        heights, widths = zip(*version.sizes_hw, strict=True)
        backbone = self.network.backbone
        largest = padded_size(
            (max(heights), max(widths)), backbone.size_divisibility, backbone.square_size
        )
        return math.prod(largest) * len(version.all_sizes_hw)

    def _detect(
        self, images: Sequence[Tensor], versions: Sequence["Version"]
    ) -> tuple[list[ScoredBoxes], dict[int, Features]]:
        """Boxes in pixels of the original images, and the features that are kept, by position."""
        detected: dict[int, ScoredBoxes] = {}
        kept: dict[int, Features] = {}
        heads, free = self.network.roi_heads, self.max_kept_pixels
        # From large to small, so that the features that do not fit are those of small versions.
        pixels = [self._padded_pixels(version) for version in versions]
        for position in sorted(range(len(versions)), key=pixels.__getitem__, reverse=True):
            version = versions[position]
            features = self._extract(images, version)
            proposals = self.network.propose(features, version.all_sizes_hw)
            maps = pooling_maps(self.network.head_features(features), heads.config)
            instances = heads.detect(maps, proposals, version.all_sizes_hw)
            detected[position] = version.to_original(instances)
            if heads.mask_head is not None and pixels[position] <= free:
                kept[position] = features
                free -= pixels[position]
        return [detected[position] for position in range(len(versions))], kept

    def _merge(
        self, detected: Sequence[ScoredBoxes], original_sizes_hw: Sequence[SizeHW]
    ) -> Instances:
        """Select the best boxes of all versions."""
        boxes, scores, classes, images = (
            torch.cat([getattr(each, name) for each in detected])
            for name in ("boxes", "scores", "classes", "images")
        )
        boxes = clip(boxes, limits(original_sizes_hw, boxes.device)[images])
        chosen = scores > MIN_SCORE
        candidates = ScoredBoxes(boxes[chosen], scores[chosen], classes[chosen], images[chosen])
        selection = self.network.roi_heads.config.selection
        return select_best(
            candidates, len(original_sizes_hw), selection.nms_threshold, selection.max_detections
        )

    def _average_masks(
        self,
        images: Sequence[Tensor],
        versions: Sequence["Version"],
        kept: dict[int, Features],
        merged: Instances,
    ) -> Tensor:
        """Float32[N, M, M]: the mean of the probabilities of all versions for the same boxes."""
        heads, masks = self.network.roi_heads, []
        for position, version in enumerate(versions):
            features = kept.pop(position, None) or self._extract(images, version)
            maps = pooling_maps(self.network.head_features(features), heads.config)
            predicted = heads.predict_masks(maps, version.from_original(merged))
            plain, *flipped = predicted.split(len(merged))
            masks += [plain, *(mask.flip(-1) for mask in flipped)]
        return torch.stack(masks).mean(dim=0)


@dataclass(frozen=True)
class Version:
    """The images of a batch in one size: first all as they are, then, if `flip`, all flipped.

    Attributes:
        sizes_hw: heights and widths that the images are resized to.
        original_sizes_hw: heights and widths before.
        flip: whether the flipped images belong to it.
    """

    sizes_hw: Sequence[SizeHW]
    original_sizes_hw: Sequence[SizeHW]
    flip: bool

    @property
    def all_sizes_hw(self) -> list[SizeHW]:
        """The sizes of the images and of the flipped ones."""
        return [*self.sizes_hw] * (2 if self.flip else 1)

    def to_original(self, instances: Instances) -> ScoredBoxes:
        """Boxes in pixels of the original images, and the indices of these images."""
        device, count = instances.boxes.device, len(self.sizes_hw)
        rows = image_indices(instances.counts, device)
        images = rows % count
        boxes = instances.boxes
        if self.flip:
            widths = limits(self.sizes_hw, device)[images, 0]
            boxes = torch.where((rows >= count)[:, None], flip_boxes(boxes, widths), boxes)
        scales = scale_factors(self.sizes_hw, self.original_sizes_hw, device)[images]
        return ScoredBoxes(boxes * scales, instances.scores, instances.classes, images)

    def from_original(self, merged: Instances) -> Instances:
        """The boxes of the original images in those of this version."""
        device = merged.boxes.device
        images = image_indices(merged.counts, device)
        scales = scale_factors(self.original_sizes_hw, self.sizes_hw, device)[images]
        boxes = merged.boxes * scales
        if not self.flip:
            return replace(merged, boxes=boxes)
        widths = limits(self.sizes_hw, device)[images, 0]
        return Instances(
            boxes=torch.cat((boxes, flip_boxes(boxes, widths))),
            scores=merged.scores.repeat(2),
            classes=merged.classes.repeat(2),
            counts=[*merged.counts, *merged.counts],
        )


def flip_boxes(boxes_xyxy: Tensor, widths: Tensor) -> Tensor:
    """Float32[N, 4] in images of these widths, Float32[N], after a horizontal flip."""
    x1, y1, x2, y2 = boxes_xyxy.unbind(dim=1)
    return torch.stack((widths - x2, y1, widths - x1, y2), dim=1)
