"""Swin Transformer backbone of a keyed config as typed configuration."""

from d2serve.building.config_values import ConfigValues
from d2serve.building.keyed_fpn import IN_FEATURES, Top, read_pyramid
from d2serve.building.swin_keys import D2_SWIN, SIZED_BACKBONES, SWINT_BACKBONES
from d2serve.model.backbone_config import (
    NO_TOP,
    ONE_CONVOLUTION,
    POOLED_TOP,
    STAGES,
    TWO_CONVOLUTIONS,
    BackboneConfig,
)
from d2serve.model.vision_transformer_config import SwinConfig

SWIN, SWINT = "MODEL.SWIN", "MODEL.SWINT"
SWINT_STAGES = ("stage2", "stage3", "stage4", "stage5")
NUM_STAGES = 4
# Channels of the first stage, blocks of the third one, attention heads, window size.
SIZES = {
    "T": (96, 6, 3, 7),
    "S": (96, 18, 3, 7),
    "B": (128, 18, 4, 7),
    "B-22k": (128, 18, 4, 7),
    "B-22k-384": (128, 18, 4, 12),
    "L-22k": (192, 18, 6, 7),
    "L-22k-384": (192, 18, 6, 12),
}
# The top of build_retinanet_swint_fpn_backbone by MODEL.FPN.TOP_LEVELS.
SWINT_TOPS = {
    0: Top(NO_TOP),
    1: Top(ONE_CONVOLUTION, of_pyramid=True),
    2: Top(TWO_CONVOLUTIONS, of_pyramid=True),
}


def read_swin_backbone(values: ConfigValues) -> BackboneConfig:
    """Read MODEL.SWIN or MODEL.SWINT, and MODEL.FPN, as the project of the backbone does."""
    name = values["MODEL.BACKBONE.NAME"]
    if name == D2_SWIN:
        return BackboneConfig(_read_d2_swin(values), fpn=None)
    if name in SWINT_BACKBONES:
        swin, out_features = _read_swint(values), f"{SWINT}.OUT_FEATURES"
        retina = SWINT_TOPS[values["MODEL.FPN.TOP_LEVELS"]]
        top = retina if name == SWINT_BACKBONES[2] else Top(POOLED_TOP)
    else:
        swin, out_features = _read_sized(values), f"{SWIN}.OUT_FEATURES"
        top = _sized_top(values)
    if name in (SWINT_BACKBONES[0], SIZED_BACKBONES[0]):
        return BackboneConfig(swin, fpn=None)
    return read_pyramid(values, swin, out_features, top)


def _read_d2_swin(values: ConfigValues) -> SwinConfig:
    """D2SwinTransformer has norms for all feature maps, returned or not."""
    _check_features(values, f"{SWIN}.OUT_FEATURES", STAGES)
    config = SwinConfig(
        patch_size=values[f"{SWIN}.PATCH_SIZE"],
        dim=values[f"{SWIN}.EMBED_DIM"],
        depths=tuple(values[f"{SWIN}.DEPTHS"]),
        heads=tuple(values[f"{SWIN}.NUM_HEADS"]),
        window_size=values[f"{SWIN}.WINDOW_SIZE"],
        mlp_ratio=values[f"{SWIN}.MLP_RATIO"],
        qkv_bias=values[f"{SWIN}.QKV_BIAS"],
        query_scale=values[f"{SWIN}.QK_SCALE"],
        norm_eps=1e-5,
        patch_norm=values[f"{SWIN}.PATCH_NORM"],
        absolute_positions=values[f"{SWIN}.APE"],
        pretrain_image_size=values[f"{SWIN}.PRETRAIN_IMG_SIZE"],
        features=STAGES,
        feature_stages=tuple(range(NUM_STAGES)),
    )
    if config.patch_size != 4:
        values.add_conflict(f"{SWIN}.PATCH_SIZE", "must be 4, because res2 has a stride of 4")
    _check_heads(values, SWIN, config)
    return config


def _read_swint(values: ConfigValues) -> SwinConfig:
    features = _check_features(values, f"{SWINT}.OUT_FEATURES", SWINT_STAGES)
    config = _standard(
        dim=values[f"{SWINT}.EMBED_DIM"],
        depths=tuple(values[f"{SWINT}.DEPTHS"]),
        heads=tuple(values[f"{SWINT}.NUM_HEADS"]),
        window_size=values[f"{SWINT}.WINDOW_SIZE"],
        features=features,
        stages=tuple(SWINT_STAGES.index(name) for name in features),
        mlp_ratio=values[f"{SWINT}.MLP_RATIO"],
        absolute_positions=values[f"{SWINT}.APE"],
    )
    _check_heads(values, SWINT, config)
    return config


def _read_sized(values: ConfigValues) -> SwinConfig:
    dim, depth, heads, window_size = SIZES[values[f"{SWIN}.SIZE"]]
    # Detic's default, or DiffusionDet's.
    stages = (1, 2, 3) if _is_detic(values) else (0, 1, 2, 3)
    given = values[f"{SWIN}.OUT_FEATURES"]
    if given and set(given) <= {*range(NUM_STAGES)}:
        stages = tuple(sorted(set(given)))
    elif given:
        values.add_conflict(f"{SWIN}.OUT_FEATURES", "must be stages from 0 to 3")
    return _standard(
        dim=dim,
        depths=(2, 2, depth, 2),
        heads=tuple(heads * 2**stage for stage in range(NUM_STAGES)),
        window_size=window_size,
        features=tuple(f"swin{stage}" for stage in stages),
        stages=stages,
    )


def _is_detic(values: ConfigValues) -> bool:
    """Return whether a pyramid begins at stride 8, as those of Detic and CenterNet2 do.

    DiffusionDet has a backbone of the same name, with a pyramid from stride 4.
    """
    return "swin0" not in values[IN_FEATURES]


def _sized_top(values: ConfigValues) -> Top:
    return Top(TWO_CONVOLUTIONS, of_pyramid=True) if _is_detic(values) else Top(POOLED_TOP)


def _standard(
    dim: int,
    depths: tuple[int, ...],
    heads: tuple[int, ...],
    window_size: int,
    features: tuple[str, ...],
    stages: tuple[int, ...],
    mlp_ratio: float = 4.0,
    absolute_positions: bool = False,
) -> SwinConfig:
    """The values that the published networks share."""
    return SwinConfig(
        patch_size=4,
        dim=dim,
        depths=depths,
        heads=heads,
        window_size=window_size,
        mlp_ratio=mlp_ratio,
        qkv_bias=True,
        query_scale=None,
        norm_eps=1e-5,
        patch_norm=True,
        absolute_positions=absolute_positions,
        pretrain_image_size=224,
        features=features,
        feature_stages=stages,
    )


def _check_features(values: ConfigValues, key: str, supported: tuple[str, ...]) -> tuple[str, ...]:
    """The given feature maps, finest first; all of the supported ones by default."""
    given = values[key] or supported
    if not set(given) <= {*supported}:
        values.add_conflict(key, f"supported: {', '.join(supported)}")
        return supported
    return tuple(name for name in supported if name in given)


def _check_heads(values: ConfigValues, section: str, config: SwinConfig) -> None:
    for stage, heads in enumerate(config.heads):
        channels = config.dim * 2**stage
        if channels % heads:
            values.add_conflict(
                f"{section}.NUM_HEADS", f"{heads} must divide {channels}, the channels of its stage"
            )
