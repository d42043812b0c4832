"""Backbone of a keyed config as typed configuration."""

from d2serve.building.config_values import ConfigValues
from d2serve.model.backbone_config import (
    BASIC_BLOCK_DEPTHS,
    STAGES,
    BackboneConfig,
    DeformConfig,
    FPNConfig,
    ResNetConfig,
)

POOLED_FPN = "build_resnet_fpn_backbone"
CONVOLVED_FPN = "build_retinanet_resnet_fpn_backbone"


def read_backbone(values: ConfigValues) -> BackboneConfig:
    """Read MODEL.BACKBONE, MODEL.RESNETS and MODEL.FPN."""
    name = values["MODEL.BACKBONE.NAME"]
    resnet = _read_resnet(values)
    if name not in (POOLED_FPN, CONVOLVED_FPN):
        return BackboneConfig(resnet, fpn=None)
    features = tuple(values["MODEL.FPN.IN_FEATURES"])
    stages = STAGES[: resnet.last_stage - 1]
    if not features or features != stages[-len(features) :] or features[-1] != "res5":
        available = f"MODEL.RESNETS.OUT_FEATURES, here {values['MODEL.RESNETS.OUT_FEATURES']!r}"
        values.add_conflict(
            "MODEL.FPN.IN_FEATURES", f"must be the last of {available}, up to 'res5'"
        )
    if resnet.res5_dilation != 1:
        values.add_conflict("MODEL.RESNETS.RES5_DILATION", "must be 1 with an FPN")
    fpn = FPNConfig(
        in_features=features,
        out_channels=values["MODEL.FPN.OUT_CHANNELS"],
        fuse_type=values["MODEL.FPN.FUSE_TYPE"],
        norm=values["MODEL.FPN.NORM"],
        top_convolutions=name == CONVOLVED_FPN,
    )
    return BackboneConfig(resnet, fpn)


def _read_resnet(values: ConfigValues) -> ResNetConfig:
    out_features = values["MODEL.RESNETS.OUT_FEATURES"]
    stages = [STAGES.index(name) + 2 for name in out_features if name in STAGES]
    if len(stages) < len(out_features):
        values.add_conflict("MODEL.RESNETS.OUT_FEATURES", f"supported: {', '.join(STAGES)}")
    deform = DeformConfig(
        values["MODEL.RESNETS.DEFORM_MODULATED"], values["MODEL.RESNETS.DEFORM_NUM_GROUPS"]
    )
    per_stage = values["MODEL.RESNETS.DEFORM_ON_PER_STAGE"]
    config = ResNetConfig(
        depth=values["MODEL.RESNETS.DEPTH"],
        num_groups=values["MODEL.RESNETS.NUM_GROUPS"],
        width_per_group=values["MODEL.RESNETS.WIDTH_PER_GROUP"],
        stride_in_1x1=values["MODEL.RESNETS.STRIDE_IN_1X1"],
        res2_out_channels=values["MODEL.RESNETS.RES2_OUT_CHANNELS"],
        stem_out_channels=values["MODEL.RESNETS.STEM_OUT_CHANNELS"],
        norm=values["MODEL.RESNETS.NORM"],
        res5_dilation=values["MODEL.RESNETS.RES5_DILATION"],
        deform=tuple(deform if deforms else None for deforms in per_stage),
        last_stage=max(stages, default=2),
    )
    if config.depth in BASIC_BLOCK_DEPTHS:
        _check_basic_blocks(values)
    return config


def _check_basic_blocks(values: ConfigValues) -> None:
    required = {
        "RES2_OUT_CHANNELS": 64,
        "NUM_GROUPS": 1,
        "RES5_DILATION": 1,
        "DEFORM_ON_PER_STAGE": [False] * 4,
    }
    for name, value in required.items():
        if values[f"MODEL.RESNETS.{name}"] != value:
            values.add_conflict(f"MODEL.RESNETS.{name}", f"must be {value} for depth 18 and 34")
