"""FCOS and CondInst of a keyed config as typed configuration."""

from math import log2

from d2serve.building.config_values import ConfigValues
from d2serve.building.keyed_dense import read_features
from d2serve.building.keyed_fpn import Top
from d2serve.model.backbone_config import (
    NO_TOP,
    ONE_CONVOLUTION,
    TWO_CONVOLUTIONS,
    BackboneConfig,
)
from d2serve.model.fcos_config import CondInstConfig, FCOSConfig, MaskBranchConfig, TowerConfig
from d2serve.model.layers import GROUP_NORM_GROUPS, NO_NORM_NO_BIAS

FCOS = "MODEL.FCOS"
CONDINST = "MODEL.CONDINST"
BRANCH = "MODEL.CONDINST.MASK_BRANCH"
GENERATOR = "MODEL.PROPOSAL_GENERATOR.NAME"
TOP_BLOCKS = {0: NO_TOP, 1: ONE_CONVOLUTION, 2: TWO_CONVOLUTIONS}
# Names of equal norms, and of none.
NORMS = {"NaiveGN": "GN", "none": ""}
NO_SUPPRESSION = 1.0


def read_fcos_top(values: ConfigValues) -> Top:
    """Read the levels above the pyramid, which are convolved from p5."""
    for name in (
        "MODEL.BACKBONE.ANTI_ALIAS",
        "MODEL.FCPOSE_ON",
        "MODEL.MOBILENET",
        "MODEL.RESNETS.DEFORM_INTERVAL",
    ):
        values[name]
    return Top(TOP_BLOCKS[values[f"{FCOS}.TOP_LEVELS"]], of_pyramid=True)


def read_fcos(values: ConfigValues, backbone: BackboneConfig) -> FCOSConfig:
    """Read MODEL.FCOS."""
    if values[GENERATOR] != "FCOS":
        architecture = values["MODEL.META_ARCHITECTURE"]
        values.add_conflict(GENERATOR, f"must be 'FCOS' for {architecture} with this config")
    values[f"{FCOS}.BOX_QUALITY"]
    features = read_features(f"{FCOS}.IN_FEATURES", values, backbone)
    _check_strides(values, backbone, features)
    threshold, limit = values[f"{FCOS}.NMS_TH"], values[f"{FCOS}.POST_NMS_TOPK_TEST"]
    topk = values[f"{FCOS}.PRE_NMS_TOPK_TEST"]
    norm = values[f"{FCOS}.NORM"]
    config = FCOSConfig(
        in_features=features,
        num_classes=values[f"{FCOS}.NUM_CLASSES"],
        share=TowerConfig(values[f"{FCOS}.NUM_SHARE_CONVS"]),
        classes=_read_tower(values, "CLS"),
        boxes=_read_tower(values, "BOX"),
        norm=NORMS.get(norm, norm),
        use_scale=values[f"{FCOS}.USE_SCALE"],
        score_threshold=values[f"{FCOS}.INFERENCE_TH_TEST"],
        threshold_with_quality=values[f"{FCOS}.THRESH_WITH_CTR"],
        topk_per_level=topk,
        nms_threshold=threshold if threshold > 0 else NO_SUPPRESSION,
        max_detections=limit if limit > 0 else max(1, topk * len(features)),
    )
    check_groups(values, f"{FCOS}.NORM", config.norm, "MODEL.FPN.OUT_CHANNELS")
    return config


def _read_tower(values: ConfigValues, name: str) -> TowerConfig:
    """Read the tower of classes or boxes; its last convolution may be deformable."""
    num_convs = values[f"{FCOS}.NUM_{name}_CONVS"]
    return TowerConfig(num_convs, min(num_convs, int(values[f"{FCOS}.USE_DEFORMABLE"])))


def _check_strides(
    values: ConfigValues, backbone: BackboneConfig, features: tuple[str, ...]
) -> None:
    strides = [2 ** backbone.levels[backbone.features.index(name)] for name in features]
    if list(values[f"{FCOS}.FPN_STRIDES"])[: len(features)] != strides:
        values.add_conflict(
            f"{FCOS}.FPN_STRIDES", f"must be {strides} with IN_FEATURES {list(features)!r}"
        )


def check_groups(values: ConfigValues, key: str, norm: str, channels: str) -> None:
    """Record a number of channels that a group norm cannot divide."""
    if norm == "GN" and values[channels] % GROUP_NORM_GROUPS:
        values.add_conflict(channels, f"must be a multiple of {GROUP_NORM_GROUPS} with {key} GN")


def read_condinst(values: ConfigValues, backbone: BackboneConfig) -> CondInstConfig:
    """Read MODEL.FCOS and MODEL.CONDINST."""
    fcos, branch = read_fcos(values, backbone), _read_branch(values, backbone)
    stride = values[f"{CONDINST}.MASK_OUT_STRIDE"]
    branch_stride = 2 ** backbone.levels[backbone.features.index(branch.in_features[0])]
    if branch_stride % stride or log2(stride) % 1:
        values.add_conflict(
            f"{CONDINST}.MASK_OUT_STRIDE",
            f"must be a power of 2 of at most {branch_stride}, the stride of "
            f"{branch.in_features[0]}",
        )
    return CondInstConfig(
        fcos=fcos,
        branch=branch,
        num_layers=values[f"{CONDINST}.MASK_HEAD.NUM_LAYERS"],
        channels=values[f"{CONDINST}.MASK_HEAD.CHANNELS"],
        position_scales=_read_scales(values, len(fcos.in_features)),
        mask_stride=stride,
    )


def _read_scales(values: ConfigValues, levels: int) -> tuple[int, ...]:
    if values[f"{CONDINST}.MASK_HEAD.DISABLE_REL_COORDS"]:
        return ()
    name = f"{FCOS}.SIZES_OF_INTEREST"
    sizes = tuple(values[name])
    if not sizes or len(sizes) + 1 < levels:
        values.add_conflict(name, f"must have {max(levels - 1, 1)} values for {levels} levels")
        return (1,) * levels
    return (*sizes, sizes[-1] * 2)


def _read_branch(values: ConfigValues, backbone: BackboneConfig) -> MaskBranchConfig:
    features = read_features(f"{BRANCH}.IN_FEATURES", values, backbone)
    # The first one has the stride of the masks, to which the others are upsampled.
    levels = [backbone.levels[backbone.features.index(name)] for name in features]
    # Images are padded for p5; coarser maps have its size only for some images.
    if min(levels) != levels[0] or (len(levels) > 1 and max(levels) > 5):
        values.add_conflict(
            f"{BRANCH}.IN_FEATURES", "must begin with the finest level and end with p5 at most"
        )
    # Only the norm None has a bias in its place.
    norm = values[f"{BRANCH}.NORM"]
    check_groups(values, f"{BRANCH}.NORM", norm or "", f"{BRANCH}.CHANNELS")
    return MaskBranchConfig(
        in_features=features,
        channels=values[f"{BRANCH}.CHANNELS"],
        num_convs=values[f"{BRANCH}.NUM_CONVS"],
        out_channels=values[f"{BRANCH}.OUT_CHANNELS"],
        norm="" if norm is None else norm or NO_NORM_NO_BIAS,
    )
