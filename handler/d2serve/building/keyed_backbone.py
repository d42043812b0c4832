"""Backbone of a keyed config as typed configuration."""

from d2serve.building.config_values import ConfigValues
from d2serve.model.backbone_config import (
    BASIC_BLOCK_DEPTHS,
    STAGES,
    STEM,
    BackboneConfig,
    DeformConfig,
    FPNConfig,
    ResNetConfig,
)
from d2serve.model.layers import NO_NORM_NO_BIAS

POOLED_FPN = "build_resnet_fpn_backbone"
CONVOLVED_FPN = "build_retinanet_resnet_fpn_backbone"


def read_backbone(values: ConfigValues) -> BackboneConfig:
    """Read MODEL.BACKBONE, MODEL.RESNETS and MODEL.FPN."""
    name = values["MODEL.BACKBONE.NAME"]
    resnet = _read_resnet(values)
    if name not in (POOLED_FPN, CONVOLVED_FPN):
        return BackboneConfig(resnet, fpn=None)
    features = tuple(values["MODEL.FPN.IN_FEATURES"])
    returned = set(values["MODEL.RESNETS.OUT_FEATURES"])
    if not _are_pyramid(features, resnet) or not returned.issuperset(features):
        available = f"MODEL.RESNETS.OUT_FEATURES, here {values['MODEL.RESNETS.OUT_FEATURES']!r}"
        values.add_conflict(
            "MODEL.FPN.IN_FEATURES", f"must be the last of {available}, up to 'res5'"
        )
        features = STAGES
    if resnet.res5_dilation != 1:
        values.add_conflict("MODEL.RESNETS.RES5_DILATION", "must be 1 with an FPN")
    # In Detectron2 only the norm "" has a bias in its place.
    norm = values["MODEL.FPN.NORM"]
    fpn = FPNConfig(
        in_features=features,
        out_channels=values["MODEL.FPN.OUT_CHANNELS"],
        fuse_type=values["MODEL.FPN.FUSE_TYPE"],
        norm=NO_NORM_NO_BIAS if norm is None else norm,
        top_convolutions=name == CONVOLVED_FPN,
    )
    return BackboneConfig(resnet, fpn)


def _are_pyramid(features: tuple[str, ...], resnet: ResNetConfig) -> bool:
    """Return whether feature maps are of consecutive strides up to that of res5."""
    if features[:1] == (STEM,) and resnet.stem_feature:
        features = (STAGES[0], *features[1:])
    consecutive = len(features) > 0 and features == STAGES[-len(features) :]
    return consecutive and resnet.last_stage == len(STAGES) + 1


def _read_resnet(values: ConfigValues) -> ResNetConfig:
    out_features = values["MODEL.RESNETS.OUT_FEATURES"]
    stages = [STAGES.index(name) + 2 for name in out_features if name in STAGES]
    if not stages or set(out_features) - {STEM, *STAGES}:
        values.add_conflict(
            "MODEL.RESNETS.OUT_FEATURES", f"supported: {', '.join(STAGES)}, and {STEM} beside them"
        )
    config = ResNetConfig(
        depth=values["MODEL.RESNETS.DEPTH"],
        num_groups=values["MODEL.RESNETS.NUM_GROUPS"],
        width_per_group=values["MODEL.RESNETS.WIDTH_PER_GROUP"],
        stride_in_1x1=values["MODEL.RESNETS.STRIDE_IN_1X1"],
        res2_out_channels=values["MODEL.RESNETS.RES2_OUT_CHANNELS"],
        stem_out_channels=values["MODEL.RESNETS.STEM_OUT_CHANNELS"],
        norm=values["MODEL.RESNETS.NORM"] or NO_NORM_NO_BIAS,
        res5_dilation=values["MODEL.RESNETS.RES5_DILATION"],
        deform=_read_deform(values),
        last_stage=max(stages, default=2),
        stem_feature=STEM in out_features,
    )
    if config.depth in BASIC_BLOCK_DEPTHS:
        _check_basic_blocks(values)
    return config


def _read_deform(values: ConfigValues) -> tuple[DeformConfig | None, ...]:
    per_stage = values["MODEL.RESNETS.DEFORM_ON_PER_STAGE"][: len(STAGES)]
    if not any(per_stage):
        return (None,) * len(STAGES)
    deform = DeformConfig(
        values["MODEL.RESNETS.DEFORM_MODULATED"], values["MODEL.RESNETS.DEFORM_NUM_GROUPS"]
    )
    return tuple(deform if deforms else None for deforms in per_stage)


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
