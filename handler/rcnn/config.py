"""The part of a Detectron2 config that inference needs, typed and checked."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handler.rcnn.config_keys import IGNORED, KEYS
from handler.rcnn.yaml_config import ConfigError, read_yaml_config

__all__ = ["ConfigError", "RCNNConfig", "load_config", "parse_config"]


@dataclass(frozen=True)
class InputConfig:
    """How a picture enters the network; sizes in pixels, `min_size` 0 means no resize."""

    channel_order: str
    min_size: int
    max_size: int
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]


@dataclass(frozen=True)
class ResNetConfig:
    depth: int
    num_groups: int
    width_per_group: int
    stride_in_1x1: bool
    res2_out_channels: int
    stem_out_channels: int


@dataclass(frozen=True)
class FPNConfig:
    in_features: tuple[str, ...]
    out_channels: int
    fuse_type: str


@dataclass(frozen=True)
class RPNConfig:
    """Region proposals; anchor sizes in pixels of the network's input, ratios height / width."""

    in_features: tuple[str, ...]
    conv_dims: tuple[int, ...]
    box_weights: tuple[float, ...]
    pre_nms_topk: int
    post_nms_topk: int
    nms_threshold: float
    min_box_size: float
    anchor_sizes: tuple[tuple[float, ...], ...]
    anchor_ratios: tuple[tuple[float, ...], ...]
    anchor_offset: float


@dataclass(frozen=True)
class PoolerConfig:
    resolution: int
    sampling_ratio: int
    aligned: bool


@dataclass(frozen=True)
class BoxHeadConfig:
    pooler: PoolerConfig
    num_conv: int
    conv_dim: int
    num_fc: int
    fc_dim: int
    class_agnostic: bool
    sigmoid_scores: bool
    box_weights: tuple[float, ...]


@dataclass(frozen=True)
class MaskHeadConfig:
    pooler: PoolerConfig
    num_conv: int
    conv_dim: int
    class_agnostic: bool


@dataclass(frozen=True)
class ROIHeadsConfig:
    in_features: tuple[str, ...]
    num_classes: int
    score_threshold: float
    nms_threshold: float
    max_detections: int
    box: BoxHeadConfig
    mask: MaskHeadConfig | None


@dataclass(frozen=True)
class RCNNConfig:
    """A GeneralizedRCNN with a ResNet-FPN backbone and standard ROI heads."""

    input: InputConfig
    resnet: ResNetConfig
    fpn: FPNConfig
    rpn: RPNConfig
    roi_heads: ROIHeadsConfig


def load_config(path: Path) -> RCNNConfig:
    """Reads and checks a Detectron2 YAML config.

    Raises:
        ConfigError: it cannot be read, or asks for something that is not supported; the message
            names every such key with its value.
    """
    return parse_config(read_yaml_config(path))


def parse_config(explicit: dict[str, Any]) -> RCNNConfig:
    """Checks what a config sets explicitly, with Detectron2's defaults for the rest.

    Raises:
        ConfigError: see `load_config`.
    """
    given = dict(_flatten(explicit))
    values = {name: given.get(name, key.default) for name, key in KEYS.items()}
    problems = [*_unsupported(values), *_unknown(given)]
    if not problems:
        problems = list(_inconsistent(values))
    if problems:
        raise ConfigError("this config is not supported:\n  " + "\n  ".join(problems))
    return _build(values)


def _flatten(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in KEYS:
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value


def _unsupported(values: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if name.startswith("MODEL.ROI_MASK_HEAD.") and values["MODEL.MASK_ON"] is not True:
            continue
        if not KEYS[name].check(value):
            yield f"{name}: {value!r} (supported: {KEYS[name].allowed})"


def _unknown(given: dict[str, Any]) -> Iterator[str]:
    for name, value in given.items():
        ignored = any(name == known or name.startswith(f"{known}.") for known in IGNORED)
        if name not in KEYS and not ignored:
            yield f"{name}: {value!r} (not a key of Detectron2's own config)"


def _inconsistent(values: dict[str, Any]) -> Iterator[str]:
    stages = ["res2", "res3", "res4", "res5"]
    for name in ("MODEL.RESNETS.OUT_FEATURES", "MODEL.FPN.IN_FEATURES"):
        if list(values[name]) != stages:
            yield f"{name}: {values[name]!r} (supported: only {stages!r})"
    if values["MODEL.RESNETS.DEPTH"] in (18, 34):
        for name, needed in (("RES2_OUT_CHANNELS", 64), ("NUM_GROUPS", 1)):
            value = values[f"MODEL.RESNETS.{name}"]
            if value != needed:
                yield f"MODEL.RESNETS.{name}: {value!r} (must be {needed} for depth 18 and 34)"
    yield from _bad_pyramid_use(values)
    if values["MODEL.ROI_BOX_HEAD.NUM_FC"] + values["MODEL.ROI_BOX_HEAD.NUM_CONV"] == 0:
        yield "MODEL.ROI_BOX_HEAD.NUM_FC and NUM_CONV: both 0 (the box head needs a layer)"


def _bad_pyramid_use(values: dict[str, Any]) -> Iterator[str]:
    pyramid = ["p2", "p3", "p4", "p5", "p6"]
    for name in ("MODEL.RPN.IN_FEATURES", "MODEL.ROI_HEADS.IN_FEATURES"):
        features = list(values[name])
        first = pyramid.index(features[0]) if features[0] in pyramid else 0
        if features != pyramid[first : first + len(features)]:
            yield f"{name}: {features!r} (supported: consecutive levels of {pyramid!r})"
    count = len(values["MODEL.RPN.IN_FEATURES"])
    for name in ("MODEL.ANCHOR_GENERATOR.SIZES", "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"):
        lists = values[name]
        if len(lists) not in (1, count) or len({len(items) for items in lists}) > 1:
            yield f"{name}: {lists!r} (needs one list, or one of equal length per level)"


def _build(values: dict[str, Any]) -> RCNNConfig:
    rpn_levels = len(values["MODEL.RPN.IN_FEATURES"])
    return RCNNConfig(
        input=InputConfig(
            channel_order=values["INPUT.FORMAT"],
            min_size=values["INPUT.MIN_SIZE_TEST"],
            max_size=values["INPUT.MAX_SIZE_TEST"],
            pixel_mean=tuple(values["MODEL.PIXEL_MEAN"]),
            pixel_std=tuple(values["MODEL.PIXEL_STD"]),
        ),
        resnet=ResNetConfig(
            depth=values["MODEL.RESNETS.DEPTH"],
            num_groups=values["MODEL.RESNETS.NUM_GROUPS"],
            width_per_group=values["MODEL.RESNETS.WIDTH_PER_GROUP"],
            stride_in_1x1=values["MODEL.RESNETS.STRIDE_IN_1X1"],
            res2_out_channels=values["MODEL.RESNETS.RES2_OUT_CHANNELS"],
            stem_out_channels=values["MODEL.RESNETS.STEM_OUT_CHANNELS"],
        ),
        fpn=FPNConfig(
            in_features=tuple(values["MODEL.FPN.IN_FEATURES"]),
            out_channels=values["MODEL.FPN.OUT_CHANNELS"],
            fuse_type=values["MODEL.FPN.FUSE_TYPE"],
        ),
        rpn=RPNConfig(
            in_features=tuple(values["MODEL.RPN.IN_FEATURES"]),
            conv_dims=tuple(values["MODEL.RPN.CONV_DIMS"]),
            box_weights=tuple(values["MODEL.RPN.BBOX_REG_WEIGHTS"]),
            pre_nms_topk=values["MODEL.RPN.PRE_NMS_TOPK_TEST"],
            post_nms_topk=values["MODEL.RPN.POST_NMS_TOPK_TEST"],
            nms_threshold=values["MODEL.RPN.NMS_THRESH"],
            min_box_size=values["MODEL.PROPOSAL_GENERATOR.MIN_SIZE"],
            anchor_sizes=_per_level(values["MODEL.ANCHOR_GENERATOR.SIZES"], rpn_levels),
            anchor_ratios=_per_level(values["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"], rpn_levels),
            anchor_offset=values["MODEL.ANCHOR_GENERATOR.OFFSET"],
        ),
        roi_heads=_build_roi_heads(values),
    )


def _build_roi_heads(values: dict[str, Any]) -> ROIHeadsConfig:
    box = "MODEL.ROI_BOX_HEAD"
    mask = "MODEL.ROI_MASK_HEAD"
    return ROIHeadsConfig(
        in_features=tuple(values["MODEL.ROI_HEADS.IN_FEATURES"]),
        num_classes=values["MODEL.ROI_HEADS.NUM_CLASSES"],
        score_threshold=values["MODEL.ROI_HEADS.SCORE_THRESH_TEST"],
        nms_threshold=values["MODEL.ROI_HEADS.NMS_THRESH_TEST"],
        max_detections=values["TEST.DETECTIONS_PER_IMAGE"],
        box=BoxHeadConfig(
            pooler=_build_pooler(values, box),
            num_conv=values[f"{box}.NUM_CONV"],
            conv_dim=values[f"{box}.CONV_DIM"],
            num_fc=values[f"{box}.NUM_FC"],
            fc_dim=values[f"{box}.FC_DIM"],
            class_agnostic=values[f"{box}.CLS_AGNOSTIC_BBOX_REG"],
            sigmoid_scores=values[f"{box}.USE_SIGMOID_CE"],
            box_weights=tuple(values[f"{box}.BBOX_REG_WEIGHTS"]),
        ),
        mask=MaskHeadConfig(
            pooler=_build_pooler(values, mask),
            num_conv=values[f"{mask}.NUM_CONV"],
            conv_dim=values[f"{mask}.CONV_DIM"],
            class_agnostic=values[f"{mask}.CLS_AGNOSTIC_MASK"],
        )
        if values["MODEL.MASK_ON"]
        else None,
    )


def _build_pooler(values: dict[str, Any], head: str) -> PoolerConfig:
    return PoolerConfig(
        resolution=values[f"{head}.POOLER_RESOLUTION"],
        sampling_ratio=values[f"{head}.POOLER_SAMPLING_RATIO"],
        aligned=values[f"{head}.POOLER_TYPE"] == "ROIAlignV2",
    )


def _per_level(lists: Any, levels: int) -> tuple[tuple[float, ...], ...]:
    rows = tuple(tuple(row) for row in lists)
    return rows * levels if len(rows) == 1 else rows
