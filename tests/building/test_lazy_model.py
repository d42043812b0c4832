"""Supported lazy configs, and the errors for unsupported ones."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from d2serve.building.config import load_config, parse_config, read_config
from d2serve.errors import ConfigError
from d2serve.model.backbone_config import BackboneConfig, ResNetConfig, SimpleFPNConfig
from d2serve.model.config import RCNNConfig
from d2serve.model.layers import NO_NORM_NO_BIAS
from d2serve.model.meta_arch import build_network
from tests.goldens.cases import CONFIGS

VITDET = read_config(CONFIGS / "mask_rcnn_vitdet.yaml")
CASCADE = read_config(CONFIGS / "cascade_mask_rcnn_vitdet.yaml")
NET, RPN = "model.backbone.net", "model.proposal_generator"
RESNET_FPN = {
    "_target_": "detectron2.modeling.backbone.fpn.FPN",
    "bottom_up": {
        "_target_": "detectron2.modeling.ResNet",
        "stem": {"_target_": "detectron2.modeling.BasicStem", "norm": "FrozenBN"},
        "stages": {
            "_target_": "detectron2.modeling.ResNet.make_default_stages",
            "depth": 50,
            "norm": "FrozenBN",
        },
        "out_features": ["res2", "res3", "res4", "res5"],
    },
    "in_features": ["res2", "res3", "res4", "res5"],
    "out_channels": 16,
    "top_block": {"_target_": "detectron2.modeling.backbone.fpn.LastLevelMaxPool"},
}


def changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The config with other values at dotted paths; None removes them."""
    config = deepcopy(config)
    for dotted, value in changes.items():
        *above, last = dotted.split(".")
        node: Any = config
        for step in above:
            node = node[int(step)] if isinstance(node, list) else node[step]
        if value is None:
            del node[last]
        else:
            node[last] = value
    return config


def config_error(config: dict[str, Any], changes: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as raised:
        parse_config(changed(config, changes))
    return str(raised.value)


def heads(config: dict[str, Any]) -> Any:
    family = parse_config(config).family
    assert isinstance(family, RCNNConfig)
    return family.roi_heads


def test_a_vitdet_is_read() -> None:
    config = parse_config(VITDET)
    assert isinstance(config.backbone, SimpleFPNConfig)
    assert config.backbone.features == ("p2", "p3", "p4", "p5", "p6")
    assert config.backbone.vit.norm_eps == 1e-6
    assert config.backbone.vit.windowed_blocks == (0, 2)
    assert (config.backbone.square_size, config.input.max_size) == (256, 256)
    assert (config.output.num_classes, config.output.max_detections) == (5, 20)
    assert (heads(VITDET).box.norm, heads(VITDET).mask.norm) == ("LN", "LN")
    assert not heads(VITDET).predictor.sigmoid_scores


def test_a_cascade_has_weights_for_each_stage() -> None:
    found = heads(CASCADE)
    assert [weights[0] for weights in found.cascade_weights] == [10, 20, 30]
    assert found.predictor.sigmoid_scores


def test_a_written_config_is_read_again(tmp_path: Path) -> None:
    kept = tmp_path / "config.yaml"
    kept.write_text(yaml.safe_dump(VITDET), encoding="utf-8")
    assert load_config(kept) == parse_config(VITDET)


def test_classes_go_by_any_of_the_names_that_detectron2_gives_them() -> None:
    other = {
        "model._target_": "detectron2.modeling.meta_arch.rcnn.GeneralizedRCNN",
        "model.backbone.net._target_": "detectron2.modeling.backbone.vit.ViT",
    }
    assert parse_config(changed(VITDET, other)) == parse_config(VITDET)


def test_arguments_left_out_take_detectron2s_defaults() -> None:
    names = ("norm_layer", "mlp_ratio", "qkv_bias", "use_rel_pos", "patch_size")
    config = parse_config(changed(VITDET, {f"model.backbone.net.{name}": None for name in names}))
    assert isinstance(config.backbone, SimpleFPNConfig)
    vit = config.backbone.vit
    assert (vit.norm_eps, vit.mlp_ratio, vit.qkv_bias) == (1e-5, 4.0, True)
    assert (vit.relative_positions, vit.patch_size) == (False, 16)
    rest = parse_config(changed(VITDET, {f"{RPN}.anchor_generator.offset": None})).family
    assert isinstance(rest, RCNNConfig)
    assert rest.rpn.anchors.offset == 0.5
    assert "backbone.net.pos_embed" in build_network(config).state_dict()


def test_without_masks() -> None:
    names = ("mask_in_features", "mask_pooler", "mask_head")
    assert heads(changed(VITDET, {f"model.roi_heads.{name}": None for name in names})).mask is None


def test_class_agnostic_masks() -> None:
    assert not heads(VITDET).mask.class_agnostic
    assert heads(changed(VITDET, {"model.roi_heads.mask_head.num_classes": 1})).mask.class_agnostic


def test_a_resnet_with_fpn() -> None:
    config = parse_config(
        changed(VITDET, {"model.backbone": RESNET_FPN, "input.min_size": 0, "input.max_size": 2000})
    )
    assert isinstance(config.backbone, BackboneConfig)
    assert isinstance(config.backbone.bottom_up, ResNetConfig)
    assert config.backbone.bottom_up.depth == 50
    assert not config.backbone.bottom_up.stride_in_1x1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({f"{NET}._target_": "detectron2.modeling.MViT"}, "MViT' (supported: 'ViT')"),
        ({f"{NET}._target_": "mine.ViT"}, f"{NET}._target_: 'mine.ViT'"),
        ({f"{NET}._target_": "detectron2.projects.x.ViT"}, f"{NET}._target_: 'detectron2.proj"),
        ({f"{NET}.residual_block_indexes": [2]}, f"{NET}.residual_block_indexes: [2]"),
        ({f"{NET}.act_layer": "torch.nn.ReLU"}, "'torch.nn.ReLU' (supported: only without it)"),
        ({f"{NET}.norm_layer": "None.<lambda>"}, f"{NET}.norm_layer: 'None.<lambda>'"),
        ({f"{NET}.norm_layer._target_": "mine.Norm"}, f"{NET}.norm_layer._target_: 'mine.Norm'"),
        ({f"{NET}.depth": "12"}, f"{NET}.depth: '12' (supported: an integer"),
        ({f"{NET}.num_heads": 5}, f"{NET}.num_heads: 5 (must divide embed_dim, 32)"),
        ({f"{NET}.patch_size": 14}, f"{NET}.patch_size: 14"),
        ({"model.backbone.square_pad": 0}, "model.backbone.square_pad: 0"),
        ({"model.backbone.square_pad": None}, "model.backbone.square_pad: None"),
        ({"model.backbone.scale_factors": [4.0, 1.0]}, "scale_factors: [4.0, 1.0]"),
        ({"model.backbone": None}, "model.backbone: None (supported: arguments by name)"),
        ({"model._target_": "detectron2.modeling.PanopticFPN"}, "'detectron2.modeling.P"),
        ({f"{RPN}.in_features": ["p2", "p4"]}, f"{RPN}.in_features: ['p2', 'p4']"),
        ({f"{RPN}.anchor_generator.strides": [4, 8]}, "strides: [4, 8] (must be [4, 8, 16,"),
        ({f"{RPN}.anchor_generator.sizes": [[1], [2]]}, "sizes: [[1], [2]] (must be one list, or"),
        ({f"{RPN}.pre_nms_topk": 100}, f"{RPN}.pre_nms_topk: 100"),
        ({"model.roi_heads.keypoint_head": {}}, "model.roi_heads.keypoint_head: {}"),
        ({"model.roi_heads.num_classes": None}, "num_classes: None (supported: an integer"),
        ({"model.roi_heads.num_classes": "${..n}"}, "num_classes: '${..n}'"),
        ({"model.roi_heads.box_predictor.num_classes": 6}, "num_classes: 6 (must be 5)"),
        ({"model.roi_heads.mask_head.num_classes": 6}, "num_classes: 6 (must be 5 or 1)"),
        ({"model.roi_heads.box_head.conv_dims": [8, 16]}, "conv_dims: [8, 16]"),
        ({"model.roi_heads.box_head.conv_norm": "None.<lambda>"}, "conv_norm: 'None.<lambda>'"),
        ({"model.roi_heads.box_pooler.scales": [0.25]}, "scales: [0.25] (must be [0.25, 0.125,"),
        ({"model.roi_heads.box_pooler.canonical_level": 3}, "canonical_level: 3"),
        ({"model.pixel_mean": [1.0, 2.0]}, "model.pixel_mean: [1.0, 2.0]"),
        ({"model.pixel_std": [1.0] * 4}, "must have 3 values, as pixel_mean has"),
        ({"model.pixel_std": [1.0, 0.0, 1.0]}, "3 or 4 numbers other than 0"),
        ({f"{NET}.in_chans": 4}, f"{NET}.in_chans: 4 (must be 3, as many as pixel_mean has)"),
        ({"input.channel_order": "RGBA"}, "requires four values in pixel_mean"),
        ({"model.backbone.norm": ""}, "must be a norm with the scale factor 4.0"),
        ({f"{RPN}.anchor_generator.offset": 1.0}, "offset: 1.0 (supported: a number from 0 to b"),
        ({f"{RPN}.pre_nms_topk": [100, -1]}, "pre_nms_topk: [100, -1]"),
        ({"input.max_size": 300}, "input.max_size: 300 (must be at most 256, the side of"),
        ({"input.min_size": 0}, "input.max_size: 256 (must be at most 256, the side of"),
        ({"input.channel_order": "YUV"}, "input.channel_order: 'YUV'"),
        ({"input": None}, "input: None (supported: arguments by name)"),
    ],
    ids=str,
)
def test_unsupported_arguments_are_named(changes: dict[str, Any], named: str) -> None:
    message = config_error(VITDET, changes)
    assert named in message
    assert "\n" not in message, "nothing else is wrong"


def test_a_level_is_pooled_from_p5_alone() -> None:
    message = config_error(VITDET, {"model.backbone.scale_factors": [4.0, 2.0]})
    assert "model.backbone.scale_factors: [4.0, 2.0] (the last level must be p5)" in message


def test_all_problems_are_listed() -> None:
    message = config_error(VITDET, {f"{NET}.depth": 0, f"{RPN}.nms_thresh": -7, "model.more": 1})
    assert message == (
        "this config is not supported:\n"
        "  model.backbone.net.depth: 0 (supported: an integer of at least 1)\n"
        "  model.proposal_generator.nms_thresh: -7 (supported: a number of at least 0; below 0 "
        "boxes would suppress boxes that they do not overlap)\n"
        "  model.more: 1 (supported: only without it)"
    )


def per_stage(name: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda config: changed(config, {f"model.roi_heads.{name}": value})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (per_stage("box_heads.1.fc_dims", [64]), "box_heads: "),
        (per_stage("box_predictors.0.use_sigmoid_ce", False), "box_predictors: "),
        (
            per_stage("box_heads", CASCADE["model"]["roi_heads"]["box_heads"][:2]),
            "must have one entry per",
        ),
        (per_stage("box_predictors", []), "box_predictors: [] (supported: a list of one or more)"),
    ],
)
def test_different_stages_of_a_cascade_are_rejected(change: Any, named: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(change(CASCADE))
    assert named in str(raised.value)


def test_a_cascade_has_one_box_for_all_classes() -> None:
    changes = {f"model.roi_heads.box_predictors.{i}.cls_agnostic_bbox_reg": False for i in range(3)}
    assert "must be True for CascadeROIHeads" in config_error(CASCADE, changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bottom_up.stages.num_groups": 32}, "stages.num_groups: 32 (supported: only without it)"),
        ({"bottom_up.stages.depth": 18}, "stages.depth: 18"),
        ({"bottom_up.stem.norm": "BN"}, "stem.norm: 'BN' (must be 'FrozenBN')"),
        ({"bottom_up._target_": "detectron2.modeling.backbone.regnet.RegNet"}, "RegNet'"),
        (
            {"square_pad": 64},
            "input.max_size: 256 (must be at most 64, the side",
        ),
        ({"top_block._target_": "mine.Top"}, "(supported: 'LastLevelMaxPool' or 'LastLevelP6P7')"),
        ({"bottom_up.out_features": ["res3", "res4", "res5"]}, "in_features: ['res2', 'res3', "),
        ({"in_features": ["res2", "res4"]}, "in_features: ['res2', 'res4'] (supported: "),
    ],
    ids=str,
)
def test_other_resnets_are_named(changes: dict[str, Any], named: str) -> None:
    config = changed(VITDET, {"model.backbone": RESNET_FPN})
    values = {f"model.backbone.{name}": value for name, value in changes.items()}
    message = config_error(config, values)
    assert named in message
    assert "\n" not in message


NULL = object()


def with_null(config: dict[str, Any], *paths: str) -> dict[str, Any]:
    """The config with None at dotted paths."""
    config = changed(config, dict.fromkeys(paths, NULL))
    for dotted in paths:
        *above, last = dotted.split(".")
        node: Any = config
        for step in above:
            node = node[step]
        node[last] = None
    return config


@pytest.mark.parametrize(("limit", "most"), [(-1, 50 * 5), (-9, 50 * 5), (0, 1), (7, 7)])
def test_a_limit_of_detections_below_0_means_all_that_there_can_be(limit: int, most: int) -> None:
    path = "model.roi_heads.box_predictor.test_topk_per_image"
    assert parse_config(changed(VITDET, {path: limit})).output.max_detections == most


def test_all_detections_of_all_proposals_but_the_worst() -> None:
    limits = {
        "model.roi_heads.box_predictor.test_topk_per_image": -1,
        f"{RPN}.post_nms_topk": [100, -1],
    }
    assert parse_config(changed(VITDET, limits)).output.max_detections == 5 * 100 * 5


def test_heads_without_norms() -> None:
    paths = ("model.roi_heads.box_head.conv_norm", "model.roi_heads.mask_head.conv_norm")
    found = heads(with_null(VITDET, *paths))
    assert (found.box.norm, found.mask.norm) == ("", "")


def test_backbones_without_norms_have_no_biases_in_their_place() -> None:
    resnet = changed(VITDET, {"model.backbone": RESNET_FPN})
    stages, stem = "model.backbone.bottom_up.stages", "model.backbone.bottom_up.stem"
    backbone = parse_config(
        with_null(resnet, f"{stages}.norm", f"{stem}.norm", "model.backbone.norm")
    ).backbone
    assert isinstance(backbone, BackboneConfig)
    assert backbone.fpn is not None
    assert isinstance(backbone.bottom_up, ResNetConfig)
    assert (backbone.bottom_up.norm, backbone.fpn.norm) == (NO_NORM_NO_BIAS, NO_NORM_NO_BIAS)


def test_a_simple_pyramid_without_norms() -> None:
    from_p3 = {
        "model.backbone.scale_factors": [2.0, 1.0, 0.5],
        f"{RPN}.in_features": ["p3", "p4", "p5", "p6"],
        f"{RPN}.anchor_generator.strides": [8, 16, 32, 64],
        f"{RPN}.anchor_generator.sizes": [[32], [64], [128], [256]],
        "model.roi_heads.box_in_features": ["p3", "p4", "p5"],
        "model.roi_heads.mask_in_features": ["p3", "p4", "p5"],
        "model.roi_heads.box_pooler.scales": [0.125, 0.0625, 0.03125],
        "model.roi_heads.mask_pooler.scales": [0.125, 0.0625, 0.03125],
    }
    config = changed(VITDET, from_p3)
    for norm, expected in ((None, NO_NORM_NO_BIAS), ("", "")):
        given = config if norm is None else changed(config, {"model.backbone.norm": norm})
        given = with_null(given, "model.backbone.norm") if norm is None else given
        backbone = parse_config(given).backbone
        assert isinstance(backbone, SimpleFPNConfig)
        assert backbone.norm == expected


@pytest.mark.parametrize(("channels", "order"), [(1, "L"), (1, "RGB"), (4, "RGBA"), (4, "BGR")])
def test_networks_of_other_channels(channels: int, order: str) -> None:
    values = {
        "model.pixel_mean": [100.0] * channels,
        "model.pixel_std": [50.0] * channels,
        "input.channel_order": order,
    }
    vit = parse_config(changed(VITDET, {**values, f"{NET}.in_chans": channels}))
    assert build_network(vit).state_dict()["backbone.net.patch_embed.proj.weight"].shape[1] == (
        channels
    )
    resnet = changed(VITDET, {**values, "model.backbone": deepcopy(RESNET_FPN)})
    stem = "model.backbone.bottom_up.stem.in_channels"
    assert parse_config(changed(resnet, {stem: channels})).input.channels == channels
    with pytest.raises(ConfigError, match=rf"in_channels: 3 \(must be {channels}, as many"):
        parse_config(changed(resnet, {stem: 3}))


@pytest.mark.parametrize("sizes", [[0, 0], [9, 0]])
def test_networks_may_have_no_proposals(sizes: list[int]) -> None:
    assert parse_config(changed(VITDET, {f"{RPN}.pre_nms_topk": sizes}))
    assert parse_config(changed(VITDET, {f"{RPN}.post_nms_topk": sizes}))
    assert parse_config(changed(VITDET, {f"{RPN}.head.conv_dims": []}))
