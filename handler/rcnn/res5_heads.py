"""ROI heads that share the backbone's last stage, "C4" (`detectron2...roi_heads.Res5ROIHeads`)."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from handler.rcnn.backbone import Backbone
from handler.rcnn.box_head import BoxPredictor, select_boxes
from handler.rcnn.config.backbone import ResNetConfig
from handler.rcnn.config.roi_heads import ROIHeadsConfig
from handler.rcnn.instances import Instances, SizeHW
from handler.rcnn.mask_head import MaskHead
from handler.rcnn.pooler import Pyramid, ROIPooler
from handler.rcnn.resnet import make_stage, stage_shape
from handler.rcnn.rpn import Proposals

RES5 = 3


class Res5ROIHeads(nn.Module):
    """Every region of res4 goes through res5, then to the box predictor and the mask head."""

    def __init__(self, backbone: Backbone, resnet: ResNetConfig, config: ROIHeadsConfig) -> None:
        super().__init__()
        self.config = config
        [feature] = config.in_features
        self.pooler = ROIPooler(config.pooler, [backbone.strides[feature]])
        shape = stage_shape(RES5, resnet, stride=2, dilation=1)
        self.res5 = make_stage(RES5, backbone.channels[feature], shape, resnet)
        self.box_predictor = BoxPredictor(shape.out_channels, config.predictor)
        self.mask_head: MaskHead | None = None
        if config.mask is not None:
            self.mask_head = MaskHead(shape.out_channels, config.predictor.num_classes, config.mask)

    def forward(
        self, features: dict[str, Tensor], proposals: Proposals, sizes_hw: Sequence[SizeHW]
    ) -> Instances:
        """See `StandardROIHeads.forward`."""
        pyramid = Pyramid.of([features[name] for name in self.config.in_features])
        boxes, counts = proposals.boxes, proposals.counts
        regions = self.res5(self.pooler(pyramid, boxes, counts))
        candidates = self.box_predictor(regions.mean(dim=(2, 3)), boxes, counts)
        found = select_boxes(candidates, sizes_hw, self.config.selection)
        if self.mask_head is None:
            return found
        regions = self.res5(self.pooler(pyramid, found.boxes, found.counts))
        return replace(found, masks=self.mask_head.predict(regions, found.classes))
