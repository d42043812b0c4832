"""Builds the feature extractor of every family."""

from handler.rcnn.config.backbone import BackboneConfig
from handler.rcnn.fpn import FPN
from handler.rcnn.resnet import ResNet

Backbone = ResNet | FPN


def build_backbone(config: BackboneConfig) -> Backbone:
    """Feature maps by name from images: the stages of a ResNet, or the levels of its pyramid."""
    resnet = ResNet(config.resnet)
    return resnet if config.fpn is None else FPN(resnet, config.fpn)
