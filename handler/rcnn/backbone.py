"""Builds the feature extractor of every family."""

from handler.rcnn.config.backbone import AnyBackboneConfig, SimpleFPNConfig
from handler.rcnn.fpn import FPN
from handler.rcnn.resnet import ResNet
from handler.rcnn.simple_fpn import SimpleFeaturePyramid
from handler.rcnn.vit import ViT

Backbone = ResNet | FPN | SimpleFeaturePyramid


def build_backbone(config: AnyBackboneConfig) -> Backbone:
    """Feature maps by name from images: the stages of a ResNet, or the levels of its pyramid or of
    a transformer's."""
    if isinstance(config, SimpleFPNConfig):
        return SimpleFeaturePyramid(ViT(config.vit), config)
    resnet = ResNet(config.resnet)
    return resnet if config.fpn is None else FPN(resnet, config.fpn)
