"""Backbone of a keyed config as typed configuration."""

from collections.abc import Callable
from dataclasses import replace

from d2serve.building.config_values import ConfigValues
from d2serve.building.convnext_keys import CONVNEXT_BACKBONES
from d2serve.building.deeplab_keys import (
    DEEPLAB_RESNET,
    DEEPLAB_STEM,
    MULTI_GRID,
    RES4_DILATION,
    RES5_DILATION,
    STEM_TYPE,
)
from d2serve.building.dit_keys import DIT_BACKBONE
from d2serve.building.fcos_keys import FCOS_RESNET
from d2serve.building.keyed_convnext import read_convnext_backbone
from d2serve.building.keyed_dit import read_dit_backbone
from d2serve.building.keyed_fcos import read_fcos_top
from d2serve.building.keyed_fpn import IN_FEATURES, Top, are_pyramid, read_fpn
from d2serve.building.keyed_swin import read_swin_backbone
from d2serve.building.keyed_vovnet import read_vovnet_backbone
from d2serve.building.swin_keys import SWIN_BACKBONES
from d2serve.building.vovnet_keys import FCOS_VOVNET, VOVNET_BACKBONES
from d2serve.model.backbone_config import (
    BASIC_BLOCK_DEPTHS,
    POOLED_TOP,
    STAGES,
    STEM,
    TWO_CONVOLUTIONS,
    BackboneConfig,
    DeformConfig,
    ResNetConfig,
)
from d2serve.model.layers import NO_NORM_NO_BIAS

# The levels above the pyramid of each backbone that has one.
RESNET_TOPS = {
    "build_resnet_fpn_backbone": Top(POOLED_TOP),
    "build_retinanet_resnet_fpn_backbone": Top(TWO_CONVOLUTIONS),
}
NETWORKS_OF_PROJECTS: dict[str, Callable[[ConfigValues], BackboneConfig]] = {
    **dict.fromkeys(CONVNEXT_BACKBONES, read_convnext_backbone),
    DIT_BACKBONE: read_dit_backbone,
    **dict.fromkeys(SWIN_BACKBONES, read_swin_backbone),
    **dict.fromkeys(VOVNET_BACKBONES, read_vovnet_backbone),
}


def read_backbone(values: ConfigValues) -> BackboneConfig:
    """Read MODEL.BACKBONE, MODEL.FPN and the section of the bottom-up network."""
    name = values["MODEL.BACKBONE.NAME"]
    if name in NETWORKS_OF_PROJECTS:
        return NETWORKS_OF_PROJECTS[name](values)
    if name == FCOS_VOVNET:
        return read_vovnet_backbone(values, read_fcos_top(values))
    resnet = read_resnet(values)
    if name == DEEPLAB_RESNET:
        return BackboneConfig(read_deeplab_resnet(values, resnet), fpn=None)
    if name == FCOS_RESNET:
        return read_resnet_pyramid(values, resnet, read_fcos_top(values))
    if name not in RESNET_TOPS:
        return BackboneConfig(resnet, fpn=None)
    return read_resnet_pyramid(values, resnet, RESNET_TOPS[name])


def read_resnet_pyramid(values: ConfigValues, resnet: ResNetConfig, top: Top) -> BackboneConfig:
    """Read MODEL.FPN for a ResNet."""
    features = tuple(values[IN_FEATURES])
    returned = set(values["MODEL.RESNETS.OUT_FEATURES"])
    if resnet.res5_dilation != 1:
        values.add_conflict("MODEL.RESNETS.RES5_DILATION", "must be 1 with an FPN")
        resnet = replace(resnet, res5_dilation=1)
    if not are_pyramid(features, resnet) or not returned.issuperset(features):
        available = f"MODEL.RESNETS.OUT_FEATURES, here {values['MODEL.RESNETS.OUT_FEATURES']!r}"
        values.add_conflict(IN_FEATURES, f"must be the last of {available}, up to 'res5'")
        features, resnet = STAGES, replace(resnet, last_stage=5)
    return BackboneConfig(resnet, read_fpn(values, features, top))


def read_resnet(values: ConfigValues) -> ResNetConfig:
    """Read MODEL.RESNETS."""
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


def read_deeplab_resnet(values: ConfigValues, resnet: ResNetConfig) -> ResNetConfig:
    """Read the keys of MODEL.RESNETS that the project DeepLab adds."""
    if resnet.depth in BASIC_BLOCK_DEPTHS:
        values.add_conflict("MODEL.RESNETS.DEPTH", f"must be 50 or more for {DEEPLAB_RESNET}")
    config = replace(
        resnet,
        deep_stem=values[STEM_TYPE] == DEEPLAB_STEM,
        res4_dilation=values[RES4_DILATION],
        res5_multi_grid=tuple(values[MULTI_GRID]),
    )
    if config.res4_dilation == 2 and config.res5_dilation != 4:
        values.add_conflict(RES5_DILATION, f"must be 4 with {RES4_DILATION} 2")
    if config.deep_stem and config.stem_out_channels % 2:
        values.add_conflict("MODEL.RESNETS.STEM_OUT_CHANNELS", "must be even")
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
