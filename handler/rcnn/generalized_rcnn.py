"""Faster, Mask, Keypoint and Cascade R-CNN (`detectron2.modeling.meta_arch.rcnn`)."""

from collections.abc import Sequence

from torch import Tensor

from handler.rcnn.backbone import Backbone
from handler.rcnn.cascade import CascadeROIHeads
from handler.rcnn.config.backbone import AnyBackboneConfig, BackboneConfig
from handler.rcnn.config.model import ModelConfig, RCNNConfig
from handler.rcnn.config.roi_heads import CASCADE_HEADS, RES5_HEADS, ROIHeadsConfig
from handler.rcnn.instances import Found, SizeHW, rescale
from handler.rcnn.network import Network
from handler.rcnn.res5_heads import Res5ROIHeads
from handler.rcnn.roi_heads import StandardROIHeads
from handler.rcnn.rpn import RPN

ROIHeads = StandardROIHeads | Res5ROIHeads


class GeneralizedRCNN(Network):
    """Proposals, and the heads that look at each of them."""

    def __init__(self, config: ModelConfig, family: RCNNConfig) -> None:
        super().__init__(config)
        self.proposal_generator = RPN(self.backbone, family.rpn)
        self.roi_heads = build_roi_heads(self.backbone, config.backbone, family.roi_heads)

    def find(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[Found]:
        """See `Network.find`."""
        proposals = self.proposal_generator(features, sizes_hw)
        instances = self.roi_heads(features, proposals, sizes_hw)
        scaled = rescale(instances, sizes_hw, original_sizes_hw)
        return [Found(image) for image in scaled.by_image()]


def build_roi_heads(
    backbone: Backbone, backbone_config: AnyBackboneConfig, config: ROIHeadsConfig
) -> ROIHeads:
    """The heads that MODEL.ROI_HEADS.NAME asks for."""
    if config.name == RES5_HEADS and isinstance(backbone_config, BackboneConfig):
        return Res5ROIHeads(backbone, backbone_config.resnet, config)
    heads = CascadeROIHeads if config.name == CASCADE_HEADS else StandardROIHeads
    return heads(backbone, config)
