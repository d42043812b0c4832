"""Pools boxes from the pyramid level that fits their size (`detectron2.modeling.poolers`)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from handler.rcnn.config.roi_heads import PoolerConfig
from handler.rcnn.roi_align import roi_align

CANONICAL_BOX_SIZE = 224
CANONICAL_LEVEL = 4


class ROIPooler:
    """RoIAlign over several feature maps (He et al. 2017; equation 1 of the FPN paper)."""

    def __init__(self, config: PoolerConfig, strides: Sequence[int]) -> None:
        self.config = config
        self.strides = tuple(strides)
        self.first_level = int(math.log2(strides[0]))

    def __call__(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Pools all boxes of all images.

        Args:
            features: per level Float[N, C, H/s, W/s].
            boxes: per image Float[P, 4] xyxy in input pixels.

        Returns:
            Float[sum of P, C, resolution, resolution], images in order.
        """
        rois = _with_image_index(boxes)
        if len(features) == 1:
            return self._pool(features[0], rois, self.strides[0])
        levels = self._levels(rois[:, 1:])
        side = self.config.resolution
        pooled = torch.empty(
            (len(rois), features[0].shape[1], side, side),
            dtype=features[0].dtype,
            device=features[0].device,
            memory_format=torch.channels_last,
        )
        for level, (feature, stride) in enumerate(zip(features, self.strides, strict=True)):
            (chosen,) = torch.where(levels == level)
            pooled.index_put_((chosen,), self._pool(feature, rois[chosen], stride))
        return pooled

    def _pool(self, feature: Tensor, rois: Tensor, stride: int) -> Tensor:
        pooled = roi_align(
            feature.float(),
            rois,
            self.config.resolution,
            1.0 / stride,
            self.config.sampling_ratio,
            self.config.aligned,
        )
        return pooled.to(feature.dtype)

    def _levels(self, boxes: Tensor) -> Tensor:
        sizes = boxes[:, 2:] - boxes[:, :2]
        side = torch.sqrt(sizes[:, 0] * sizes[:, 1])
        levels = torch.floor(CANONICAL_LEVEL + torch.log2(side / CANONICAL_BOX_SIZE + 1e-8))
        last_level = self.first_level + len(self.strides) - 1
        return levels.clamp(self.first_level, last_level).long() - self.first_level


def _with_image_index(boxes: Sequence[Tensor]) -> Tensor:
    rows = [
        torch.cat((image_boxes.new_full((len(image_boxes), 1), index), image_boxes), dim=1)
        for index, image_boxes in enumerate(boxes)
    ]
    return torch.cat(rows)
