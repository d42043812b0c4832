"""ConvNeXt backbone of a keyed config as typed configuration."""

from d2serve.building.config_values import ConfigValues
from d2serve.building.keyed_fpn import Top, read_pyramid
from d2serve.model.backbone_config import POOLED_TOP, BackboneConfig, ConvNeXtConfig

SECTION = "MODEL.CONVNEXT"
WITHOUT_FPN = "build_convnext_backbone"


def read_convnext_backbone(values: ConfigValues) -> BackboneConfig:
    """Read MODEL.CONVNEXT and MODEL.FPN."""
    stages = tuple(sorted(set(values[f"{SECTION}.OUT_FEATURES"])))
    convnext = ConvNeXtConfig(
        depths=tuple(values[f"{SECTION}.DEPTHS"]),
        dims=tuple(values[f"{SECTION}.DIMS"]),
        layer_scale=values[f"{SECTION}.LAYER_SCALE_INIT_VALUE"] > 0,
        features=tuple(map(str, stages)),
        feature_stages=stages,
    )
    if values["MODEL.BACKBONE.NAME"] == WITHOUT_FPN:
        return BackboneConfig(convnext, fpn=None)
    return read_pyramid(values, convnext, f"{SECTION}.OUT_FEATURES", Top(POOLED_TOP))
