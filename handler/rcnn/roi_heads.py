"""From proposals to instances (`detectron2.modeling.roi_heads.StandardROIHeads`)."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from handler.rcnn.backbone import Backbone
from handler.rcnn.box_head import BoxPredictor, Candidates, ConvFCHead, select_boxes
from handler.rcnn.config.roi_heads import ROIHeadsConfig
from handler.rcnn.instances import Instances, SizeHW
from handler.rcnn.keypoint_head import KeypointHead
from handler.rcnn.mask_head import MaskHead
from handler.rcnn.pooler import Pyramid, ROIPooler
from handler.rcnn.rpn import Proposals


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
        self, features: dict[str, Tensor], proposals: Proposals, sizes_hw: Sequence[SizeHW]
    ) -> Instances:
        """The instances of every image, in input pixels.

        Args:
            features: by name Float[N, C, H/s, W/s].
            proposals: of the N images.
            sizes_hw: the images' heights and widths, padding apart.
        """
        pyramid = Pyramid.of([features[name] for name in self.config.in_features])
        candidates = self.score(pyramid, proposals, sizes_hw)
        found = select_boxes(candidates, sizes_hw, self.config.selection)
        if self.mask_head is not None:
            pooled = self.mask_pooler(pyramid, found.boxes, found.counts)
            found = replace(found, masks=self.mask_head.predict(pooled, found.classes))
        if self.keypoint_head is not None:
            pooled = self.keypoint_pooler(pyramid, found.boxes, found.counts)
            found = replace(found, keypoints=self.keypoint_head.predict(pooled, found.boxes))
        return found

    def score(
        self, pyramid: Pyramid, proposals: Proposals, sizes_hw: Sequence[SizeHW]
    ) -> Candidates:
        """What the box head makes of the proposals."""
        del sizes_hw  # a cascade clips by them
        features = self.box_head(self.box_pooler(pyramid, proposals.boxes, proposals.counts))
        candidates: Candidates = self.box_predictor(features, proposals.boxes, proposals.counts)
        return candidates

    def _add_box_heads(self, in_channels: int) -> None:
        config = self.config
        self.box_head: nn.Module = ConvFCHead(in_channels, config.pooler.resolution, config.box)
        self.box_predictor: nn.Module = BoxPredictor(self.box_head.out_size, config.predictor)
