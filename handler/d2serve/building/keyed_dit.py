"""Vision Transformer backbone of DiT's keyed configs as typed configuration."""

from d2serve.building.config_values import ConfigValues
from d2serve.building.dit_keys import PATCH_SIZE
from d2serve.building.keyed_fpn import Top, read_pyramid
from d2serve.model.backbone_config import POOLED_TOP, BackboneConfig
from d2serve.model.vision_transformer_config import BEiTConfig

OUT_FEATURES = "MODEL.VIT.OUT_FEATURES"
# Channels, blocks, attention heads, and the blocks of the feature maps.
BASE = (768, 12, 12, (3, 5, 7, 11))
LARGE = (1024, 24, 16, (7, 11, 15, 23))


def read_dit_backbone(values: ConfigValues) -> BackboneConfig:
    """Read MODEL.VIT and MODEL.FPN."""
    name = values["MODEL.VIT.NAME"]
    dim, depth, heads, blocks = BASE if "base" in name else LARGE
    height, width = values["MODEL.VIT.IMG_SIZE"]
    values["MODEL.VIT.POS_TYPE"]
    values["MODEL.VIT.MODEL_KWARGS"]
    features = tuple(f"layer{block}" for block in blocks)
    if tuple(values[OUT_FEATURES]) != features:
        values.add_conflict(OUT_FEATURES, f"must be {list(features)!r} for {name}")
    config = BEiTConfig(
        patch_size=PATCH_SIZE,
        dim=dim,
        depth=depth,
        heads=heads,
        layer_scale=name.startswith("dit"),
        positions_hw=(height // PATCH_SIZE, width // PATCH_SIZE),
        features=features,
        feature_blocks=blocks,
    )
    return read_pyramid(values, config, OUT_FEATURES, Top(POOLED_TOP))
