"""From proposals to instances (`detectron2.modeling.roi_heads.StandardROIHeads`)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from handler.rcnn.backbone import Backbone
from handler.rcnn.box_head import BoxPredictor, ConvFCHead, select_boxes
from handler.rcnn.config.roi_heads import ROIHeadsConfig
from handler.rcnn.instances import Instances, SizeHW, concatenate
from handler.rcnn.keypoint_head import KeypointHead
from handler.rcnn.mask_head import MaskHead
from handler.rcnn.pooler import ROIPooler


class StandardROIHeads(nn.Module):
    """A box head and, where the config has them, mask and keypoint heads on its boxes."""

    def __init__(self, backbone: Backbone, config: ROIHeadsConfig) -> None:
        super().__init__()
        self.config = config
        strides = [backbone.strides[name] for name in config.in_features]
        in_channels = backbone.channels[config.in_features[0]]
        self.box_pooler = ROIPooler(config.pooler, strides)
        self._add_box_heads(in_channels)
        self.mask_head: MaskHead | None = None
        if config.mask is not None:
            self.mask_pooler = ROIPooler(config.mask.pooler, strides)
            self.mask_head = MaskHead(in_channels, config.predictor.num_classes, config.mask)
        self.keypoint_head: KeypointHead | None = None
        if config.keypoint is not None:
            self.keypoint_pooler = ROIPooler(config.keypoint.pooler, strides)
            self.keypoint_head = KeypointHead(in_channels, config.keypoint)

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: Sequence[Tensor],
        sizes_hw: Sequence[SizeHW],
    ) -> list[Instances]:
        """The instances of every image, in input pixels.

        Args:
            features: by name Float[N, C, H/s, W/s].
            proposals: per image Float32[P, 4] xyxy in input pixels.
            sizes_hw: the images' heights and widths, padding apart.
        """
        levels = [features[name] for name in self.config.in_features]
        scores, boxes = self.score(levels, proposals, sizes_hw)
        found = select_boxes(scores, boxes, sizes_hw, self.config.selection)
        if self.mask_head is not None:
            pooled = self.mask_pooler(levels, [image.boxes for image in found])
            found = with_masks(self.mask_head, pooled, found)
        if self.keypoint_head is not None:
            pooled = self.keypoint_pooler(levels, [image.boxes for image in found])
            found = with_keypoints(self.keypoint_head, pooled, found)
        return found

    def score(
        self, levels: Sequence[Tensor], proposals: Sequence[Tensor], sizes_hw: Sequence[SizeHW]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Per image Float[P, K] scores and Float32[P, K or 1, 4] boxes for its proposals."""
        del sizes_hw  # a cascade clips by them
        all_proposals, counts = concatenate(proposals)
        features = self.box_head(self.box_pooler(levels, proposals))
        scores, boxes = self.box_predictor(features, all_proposals)
        return list(torch.split(scores, counts)), list(torch.split(boxes, counts))

    def _add_box_heads(self, in_channels: int) -> None:
        config = self.config
        self.box_head: nn.Module = ConvFCHead(in_channels, config.pooler.resolution, config.box)
        self.box_predictor: nn.Module = BoxPredictor(self.box_head.out_size, config.predictor)


def with_masks(head: MaskHead, pooled: Tensor, found: Sequence[Instances]) -> list[Instances]:
    """Adds the masks that the head makes of all boxes' Float[M, C, S, S]."""
    classes, counts = concatenate([image.classes for image in found])
    masks = torch.split(head.predict(pooled, classes), counts)
    return [replace(image, masks=own) for image, own in zip(found, masks, strict=True)]


def with_keypoints(
    head: KeypointHead, pooled: Tensor, found: Sequence[Instances]
) -> list[Instances]:
    """Adds the keypoints that the head makes of all boxes' Float[M, C, S, S]."""
    boxes, counts = concatenate([image.boxes for image in found])
    keypoints = torch.split(head.predict(pooled, boxes), counts)
    return [replace(image, keypoints=own) for image, own in zip(found, keypoints, strict=True)]
