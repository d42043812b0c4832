"""Backbone of a lazy config as typed configuration."""

from d2serve.building.config_keys import ANY_NORM
from d2serve.building.key_types import Key, flag, integer, one_of, only
from d2serve.building.keyed_fpn import Top
from d2serve.building.lazy_node import NORM, LazyNode, integers
from d2serve.building.lazy_parts import POSITIVE, check_channels, read_norm_eps
from d2serve.building.lazy_swin import read_swin
from d2serve.model.backbone_config import (
    NO_TOP,
    POOLED_TOP,
    STAGES,
    TWO_CONVOLUTIONS,
    AnyBackboneConfig,
    BackboneConfig,
    FPNConfig,
    ResNetConfig,
    SimpleFPNConfig,
)
from d2serve.model.layers import NO_NORM_NO_BIAS
from d2serve.model.vision_transformer_config import SwinConfig, ViTConfig

SCALES = [4.0, 2.0, 1.0, 0.5]
# The coarsest level of an `FPN`.
LAST_LEVEL = "p5"
# The level that `LastLevelMaxPool` pools.
LEVEL_BELOW_POOLED = 5
# The default of `detectron2.modeling.backbone.resnet`.
RESNET_NORM = one_of("BN", *ANY_NORM)
PYRAMID_NORM = one_of("LN", *ANY_NORM)
LAST_STAGES = one_of(*([*STAGES[first:]] for first in range(len(STAGES))))
# Detectron2 normalizes between the two upsamplings of this scale.
NORMALIZED_SCALE = 4.0


def _are_consecutive(value: object) -> bool:
    if not isinstance(value, list) or not value or value[0] not in SCALES:
        return False
    first = SCALES.index(value[0])
    return value == SCALES[first : first + len(value)]


CONSECUTIVE_SCALES = Key(SCALES, _are_consecutive, f"consecutive values of {SCALES!r}")


def read_backbone(node: LazyNode, channels: int) -> AnyBackboneConfig:
    """Read `model.backbone`, for images of `channels` channels."""
    if node.target("SimpleFeaturePyramid", "FPN") == "FPN":
        return _read_fpn(node, channels)
    return _read_simple_fpn(node, channels)


def _read_simple_fpn(node: LazyNode, channels: int) -> SimpleFPNConfig:
    node.ignore("in_feature")  # a ViT has only one
    norm = node.value("norm", PYRAMID_NORM)
    config = SimpleFPNConfig(
        vit=_read_vit(node.child("net"), channels),
        out_channels=node.required("out_channels", integer(256, 1)),
        scale_factors=tuple(node.required("scale_factors", CONSECUTIVE_SCALES)),
        norm=_without_bias(norm),
        pooled_top=_has_pooled_top(node),
        # Without a square, a narrow image could be smaller than a patch.
        square_size=node.required("square_pad", integer(1024, 1)),
    )
    if config.pooled_top and config.levels[-1] != LEVEL_BELOW_POOLED:
        node.add_conflict("scale_factors", f"the last level must be p{LEVEL_BELOW_POOLED}")
    if not norm and NORMALIZED_SCALE in config.scale_factors:
        node.add_conflict("norm", f"must be a norm with the scale factor {NORMALIZED_SCALE}")
    return config


def _without_bias(norm: str | None) -> str:
    """The norm of a pyramid: in Detectron2 only "" has a bias in its place, None has not."""
    return NO_NORM_NO_BIAS if norm is None else norm


def _read_vit(node: LazyNode, channels: int) -> ViTConfig:
    node.target("ViT")
    node.ignore("drop_path_rate", "rel_pos_zero_init", "use_act_checkpoint", "out_feature")
    check_channels(node, "in_chans", channels)
    node.value("residual_block_indexes", only([]))
    config = ViTConfig(
        image_size=node.value("img_size", integer(1024, 1)),
        patch_size=node.value("patch_size", one_of(16, 8, 32)),
        dim=node.value("embed_dim", integer(768, 4)),
        depth=node.value("depth", integer(12, 1)),
        heads=node.value("num_heads", integer(12, 1)),
        mlp_ratio=node.value("mlp_ratio", POSITIVE),
        qkv_bias=node.value("qkv_bias", flag(True)),
        norm_eps=read_norm_eps(node),
        absolute_positions=node.value("use_abs_pos", flag(True)),
        pretrain_image_size=node.value("pretrain_img_size", integer(224, 1)),
        class_token=node.value("pretrain_use_cls_token", flag(True)),
        relative_positions=node.value("use_rel_pos", flag(False)),
        window_size=node.value("window_size", integer(0, 0)),
        windowed_blocks=tuple(node.value("window_block_indexes", integers())),
    )
    if config.dim % config.heads:
        node.add_conflict("num_heads", f"must divide embed_dim, {config.dim}")
    return config


def _has_pooled_top(node: LazyNode) -> bool:
    if not node.has("top_block"):
        return False
    node.child("top_block").target("LastLevelMaxPool")
    return True


def _read_top(node: LazyNode, bottom_up: ResNetConfig | SwinConfig, out_channels: int) -> Top:
    """Read the levels above the pyramid of an `FPN`."""
    if not node.has("top_block"):
        return Top(NO_TOP)
    top = node.child("top_block")
    if top.target("LastLevelMaxPool", "LastLevelP6P7") == "LastLevelMaxPool":
        return Top(POOLED_TOP)
    top.ignore("in_channels")  # determined by `in_feature`
    top.check_equal("out_channels", out_channels)
    source: str = top.value("in_feature", one_of("res5", LAST_LEVEL))
    if source not in (*bottom_up.features, LAST_LEVEL):
        top.add_conflict("in_feature", f"must be {LAST_LEVEL!r} for this bottom_up")
    return Top(TWO_CONVOLUTIONS, of_pyramid=source == LAST_LEVEL)


def _read_fpn(node: LazyNode, channels: int) -> BackboneConfig:
    network = node.child("bottom_up")
    bottom_up: ResNetConfig | SwinConfig
    if network.target("ResNet", "SwinTransformer") == "ResNet":
        bottom_up = _read_resnet(network, channels)
    else:
        bottom_up = read_swin(network, channels)
    out_channels = node.required("out_channels", integer(256, 1))
    top = _read_top(node, bottom_up, out_channels)
    fpn = FPNConfig(
        in_features=_read_in_features(node, network, bottom_up),
        out_channels=out_channels,
        fuse_type=node.value("fuse_type", one_of("sum", "avg")),
        norm=_without_bias(node.value("norm", NORM)),
        top_block=top.block,
        top_of_pyramid=top.of_pyramid,
        square_size=node.value("square_pad", integer(0, 0)),
    )
    return BackboneConfig(bottom_up, fpn)


def _read_in_features(
    node: LazyNode, network: LazyNode, bottom_up: ResNetConfig | SwinConfig
) -> tuple[str, ...]:
    """Read the feature maps of a pyramid on a network."""
    if isinstance(bottom_up, SwinConfig):
        return tuple(node.required("in_features", only([*bottom_up.features])))
    features = tuple(node.required("in_features", LAST_STAGES))
    returned = network.value("out_features", LAST_STAGES)
    if not set(features) <= set(returned):
        node.add_conflict("in_features", f"must be of bottom_up.out_features, {returned!r}")
    return features


def _read_resnet(node: LazyNode, channels: int) -> ResNetConfig:
    node.ignore("freeze_at")
    node.required("out_features", LAST_STAGES)
    stem, stages = node.child("stem"), node.child("stages")
    stem.target("BasicStem")
    stages.target("ResNet.make_default_stages")
    check_channels(stem, "in_channels", channels)
    norm = stages.value("norm", RESNET_NORM)
    if stem.value("norm", RESNET_NORM) != norm:
        stem.add_conflict("norm", f"must be {norm!r}")
    return ResNetConfig(
        depth=stages.required("depth", one_of(50, 101, 152)),
        num_groups=1,
        width_per_group=64,
        stride_in_1x1=stages.value("stride_in_1x1", flag(False)),
        res2_out_channels=256,
        stem_out_channels=stem.value("out_channels", only(64)),
        norm=norm or NO_NORM_NO_BIAS,
        res5_dilation=1,
        deform=(None,) * len(STAGES),
        last_stage=5,
    )
