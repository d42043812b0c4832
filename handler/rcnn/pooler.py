"""Pools boxes from the pyramid level that fits their size (`detectron2.modeling.poolers`)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from handler.rcnn.config.roi_heads import PoolerConfig
from handler.rcnn.instances import image_indices
from handler.rcnn.roi_align import portions, roi_align

CANONICAL_BOX_SIZE = 224
CANONICAL_LEVEL = 4


@dataclass(frozen=True)
class Pyramid:
    """Feature maps as RoIAlign takes them, so that they are converted once for all poolers.

    Attributes:
        maps: per level Float[N, C, H/s, W/s], on a GPU Float32.
        dtype: what the layers compute in, and what is pooled comes as.
    """

    maps: list[Tensor]
    dtype: torch.dtype

    @classmethod
    def of(cls, features: Sequence[Tensor]) -> "Pyramid":
        """From Float[N, C, H/s, W/s] of the backbone's."""
        dtype = features[0].dtype
        if features[0].device.type == "cpu":
            return cls(list(features), dtype)
        # torchvision's kernel knows no bfloat16, and would itself undo channels_last, for each
        # pooler.
        layout = torch.contiguous_format
        return cls([map_.to(torch.float32, memory_format=layout) for map_ in features], dtype)


class ROIPooler:
    """RoIAlign over several feature maps (He et al. 2017; equation 1 of the FPN paper)."""

    def __init__(self, config: PoolerConfig, strides: Sequence[int]) -> None:
        self.config = config
        self.strides = tuple(strides)
        self.first_level = int(math.log2(strides[0]))

    def __call__(self, pyramid: Pyramid, boxes: Tensor, counts: Sequence[int]) -> Tensor:
        """Pools all boxes of all images.

        Args:
            pyramid: of the N images.
            boxes: Float32[P, 4] xyxy in input pixels, one image after the other.
            counts: how many of the P each image has.

        Returns:
            Float[P, C, resolution, resolution].
        """
        rois = torch.cat((image_indices(counts, boxes.device)[:, None].to(boxes), boxes), dim=1)
        if len(self.strides) == 1:
            return self._pool(pyramid, 0, rois)
        levels = self._levels(boxes)
        order = levels.argsort(stable=True)
        each = torch.arange(len(self.strides), device=levels.device)[:, None]
        on_levels = order.split((levels == each).sum(dim=1).tolist())
        side = self.config.resolution
        pooled = torch.empty(
            (len(rois), pyramid.maps[0].shape[1], side, side),
            dtype=pyramid.dtype,
            device=rois.device,
            memory_format=torch.channels_last,
        )
        for level, chosen in enumerate(on_levels):
            for some in portions(chosen):
                pooled.index_put_((some,), self._pool(pyramid, level, rois[some]))
        return pooled

    def _pool(self, pyramid: Pyramid, level: int, rois: Tensor) -> Tensor:
        pooled = roi_align(
            pyramid.maps[level],
            rois,
            self.config.resolution,
            1.0 / self.strides[level],
            self.config.sampling_ratio,
            self.config.aligned,
        )
        return pooled.to(pyramid.dtype)

    def _levels(self, boxes: Tensor) -> Tensor:
        sizes = boxes[:, 2:] - boxes[:, :2]
        side = torch.sqrt(sizes[:, 0] * sizes[:, 1])
        levels = torch.floor(CANONICAL_LEVEL + torch.log2(side / CANONICAL_BOX_SIZE + 1e-8))
        last_level = self.first_level + len(self.strides) - 1
        return levels.clamp(self.first_level, last_level).long() - self.first_level
