"""From proposals to detections (`detectron2.modeling.roi_heads.StandardROIHeads`)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from handler.rcnn.box_head import BoxPredictor, ConvFCHead, ScoredBoxes, concatenate
from handler.rcnn.config import ROIHeadsConfig
from handler.rcnn.mask_head import MaskHead
from handler.rcnn.pooler import ROIPooler


class ROIHeads(nn.Module):
    """A box head and, where the config has one, a mask head on its boxes."""

    def __init__(self, in_channels: int, strides: Sequence[int], config: ROIHeadsConfig) -> None:
        super().__init__()
        self.box_pooler = ROIPooler(config.box.pooler, strides)
        self.box_head = ConvFCHead(in_channels, config.box)
        self.box_predictor = BoxPredictor(self.box_head.out_size, config)
        self.mask_head: MaskHead | None = None
        if config.mask is not None:
            self.mask_pooler = ROIPooler(config.mask.pooler, strides)
            self.mask_head = MaskHead(in_channels, config.num_classes, config.mask)

    def forward(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        sizes_hw: Sequence[tuple[int, int]],
    ) -> tuple[list[ScoredBoxes], list[Tensor] | None]:
        """Detections of every image and, with a mask head, Float32[N, M, M] mask probabilities.

        Args:
            features: per level Float[N, C, H/s, W/s].
            proposals: per image Float32[P, 4] xyxy in input pixels.
            sizes_hw: the images' heights and widths, padding apart.
        """
        all_proposals, counts = concatenate(proposals)
        pooled = self.box_pooler(features, proposals)
        scores, boxes = self.box_predictor(self.box_head(pooled), all_proposals)
        found = self.box_predictor.select(
            torch.split(scores, counts), torch.split(boxes, counts), sizes_hw
        )
        return found, self._masks(features, found)

    def _masks(
        self, features: Sequence[Tensor], found: Sequence[ScoredBoxes]
    ) -> list[Tensor] | None:
        if self.mask_head is None:
            return None
        classes, counts = concatenate([image.classes for image in found])
        pooled = self.mask_pooler(features, [image.boxes for image in found])
        return list(torch.split(self.mask_head.predict(pooled, classes), counts))
