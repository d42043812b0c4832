"""Supported keyed configs, and the errors for unsupported ones."""

from pathlib import Path
from typing import Any

import pytest

from d2serve.building.config import load_config, parse_config
from d2serve.building.config_keys import IGNORED, KEYS
from d2serve.building.yaml_config import merge, read_yaml_config
from d2serve.errors import ConfigError
from d2serve.model.backbone_config import BackboneConfig, ResNetConfig
from d2serve.model.config import RCNNConfig, RetinaNetConfig
from d2serve.model.heads_config import SemanticConfig
from d2serve.model.layers import NO_NORM_NO_BIAS
from tests.goldens.cases import CONFIGS

PYRAMID = ["p2", "p3", "p4", "p5"]
MASK_RCNN: dict[str, Any] = {
    "MODEL": {
        "MASK_ON": True,
        "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
        "RESNETS": {"OUT_FEATURES": ["res2", "res3", "res4", "res5"]},
        "FPN": {"IN_FEATURES": ["res2", "res3", "res4", "res5"]},
        "ANCHOR_GENERATOR": {"SIZES": [[32], [64], [128], [256], [512]]},
        "RPN": {"IN_FEATURES": [*PYRAMID, "p6"]},
        "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": PYRAMID},
        "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 2},
    }
}


def with_value(name: str, value: object) -> dict[str, Any]:
    node: Any = value
    for key in reversed(name.split(".")):
        node = {key: node}
    return merge(MASK_RCNN, node)


def rcnn(explicit: dict[str, Any]) -> RCNNConfig:
    family = parse_config(explicit).family
    assert isinstance(family, RCNNConfig)
    return family


def test_absent_keys_take_detectron2s_defaults() -> None:
    config = parse_config(MASK_RCNN)
    assert isinstance(config.backbone, BackboneConfig)
    resnet, family = config.backbone.bottom_up, rcnn(MASK_RCNN)
    assert isinstance(resnet, ResNetConfig)
    assert resnet.depth == 50
    assert resnet.stride_in_1x1
    assert config.input.channel_order == "BGR"
    assert config.input.pixel_mean == (103.53, 116.28, 123.675)
    assert (config.input.min_size, config.input.max_size) == (800, 1333)
    assert family.rpn.anchors.ratios == ((0.5, 1.0, 2.0),) * 5
    assert (family.rpn.pre_nms_topk, family.rpn.post_nms_topk) == (6000, 1000)
    assert family.roi_heads.predictor.num_classes == 80
    assert family.roi_heads.selection.score_threshold == 0.05
    assert family.roi_heads.selection.max_detections == 100
    assert family.roi_heads.predictor.box_weights == (10.0, 10.0, 5.0, 5.0)
    assert family.roi_heads.pooler.aligned
    assert family.roi_heads.mask is not None
    assert family.roi_heads.keypoint is None


def test_a_config_without_masks_has_no_mask_head() -> None:
    assert rcnn(with_value("MODEL.MASK_ON", False)).roi_heads.mask is None


def test_mask_keys_are_not_checked_for_a_box_model() -> None:
    no_masks = {"MODEL": {"MASK_ON": False}}
    boxes_only = merge(with_value("MODEL.ROI_MASK_HEAD.NAME", "Mine"), no_masks)
    assert rcnn(boxes_only).roi_heads.mask is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("VERSION", 1, id="old format"),
        pytest.param("INPUT.FORMAT", "YUV-BT.601", id="luma and chroma"),
        pytest.param("INPUT.MIN_SIZE_TEST", -1, id="negative size"),
        pytest.param("INPUT.MIN_SIZE_TEST", "800", id="text for a number"),
        pytest.param("TEST.DETECTIONS_PER_IMAGE", True, id="truth for a number"),
        pytest.param("MODEL.META_ARCHITECTURE", "DETR", id="another architecture"),
        pytest.param("MODEL.BACKBONE.NAME", "build_regnet_backbone", id="another backbone"),
        pytest.param("MODEL.RESNETS.DEPTH", 26, id="unknown depth"),
        pytest.param("MODEL.RESNETS.NORM", "IN", id="instance norm"),
        pytest.param("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, 1], id="two stages"),
        pytest.param("MODEL.RESNETS.OUT_FEATURES", ["res4"], id="too few stages"),
        pytest.param("MODEL.FPN.IN_FEATURES", ["res3", "res5"], id="pyramid with a gap"),
        pytest.param("MODEL.PIXEL_MEAN", [1.0, 2.0], id="two channels"),
        pytest.param("MODEL.PIXEL_STD", [1.0] * 4, id="deviations of other channels"),
        pytest.param("INPUT.FORMAT", "RGBA", id="alpha for three channels"),
        pytest.param("INPUT.MAX_SIZE_TEST", 0, id="resized to nothing"),
        pytest.param("MODEL.RESNETS.OUT_FEATURES", ["stem"], id="stem only"),
        pytest.param("MODEL.PIXEL_STD", [0, 1, 1], id="deviation of 0"),
        pytest.param("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals", id="Fast R-CNN"),
        pytest.param("MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p4"], id="a gap between levels"),
        pytest.param("MODEL.RPN.NMS_THRESH", -0.1, id="negative overlap"),
        pytest.param("MODEL.ROI_HEADS.NMS_THRESH_TEST", -0.5, id="negative overlap of classes"),
        pytest.param("MODEL.RPN.PRE_NMS_TOPK_TEST", -1, id="all but one candidate"),
        pytest.param("MODEL.RPN.BBOX_REG_WEIGHTS", [1.0, 1.0, 0, 1.0], id="division by 0"),
        pytest.param("MODEL.ANCHOR_GENERATOR.OFFSET", 1.0, id="anchors in the next cell"),
        pytest.param("MODEL.RESNETS.OUT_FEATURES", ["res5"], id="one stage for a pyramid"),
        pytest.param("MODEL.RESNETS.DEFORM_ON_PER_STAGE", ["no"] * 4, id="text for truth"),
        pytest.param("MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64]], id="too few anchor levels"),
        pytest.param("MODEL.ANCHOR_GENERATOR.SIZES", 32, id="a number for lists"),
        pytest.param("MODEL.ROI_HEADS.NAME", "PointRendROIHeads", id="heads of a project"),
        pytest.param("MODEL.ROI_HEADS.IN_FEATURES", ["res4"], id="not of the pyramid"),
        pytest.param("MODEL.ROI_BOX_HEAD.NUM_FC", 0, id="box head without layers"),
        pytest.param("MODEL.ROI_MASK_HEAD.NAME", "PointRendMaskHead", id="another mask head"),
        pytest.param("MODEL.POINT_HEAD.NUM_FC", 3, id="a key of a project"),
        pytest.param("MY_KEY", "mine", id="a key of one's own"),
    ],
)
def test_unsupported_values_are_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(with_value(name, value))
    key = name.removeprefix("MODEL.ROI_BOX_HEAD.") if value == 0 else name
    assert key in str(raised.value)
    assert repr(value) in str(raised.value)


def test_all_problems_are_listed() -> None:
    config = merge(with_value("MODEL.MASK_ON", 1), {"INPUT": {"FORMAT": "YUV"}, "X": 1})
    with pytest.raises(ConfigError) as raised:
        parse_config(config)
    for name in ("MODEL.MASK_ON: 1", "INPUT.FORMAT: 'YUV'", "X: 1"):
        assert name in str(raised.value)


@pytest.mark.parametrize("depth", [18, 34])
def test_basic_blocks_need_64_channels(depth: int) -> None:
    shallow = with_value("MODEL.RESNETS.DEPTH", depth)
    with pytest.raises(ConfigError, match=r"RES2_OUT_CHANNELS: 256 \(must be 64"):
        parse_config(shallow)
    parse_config(merge(shallow, {"MODEL": {"RESNETS": {"RES2_OUT_CHANNELS": 64}}}))


def test_training_keys_are_ignored() -> None:
    training = {
        "SOLVER": {"BASE_LR": 0.02, "STEPS": (60000, 80000)},
        "DATASETS": {"TRAIN": ("my_dataset",)},
        "OUTPUT_DIR": "./output",
        "MODEL": {"WEIGHTS": "detectron2://ImageNet", "RPN": {"LOSS_WEIGHT": 2.0}},
    }
    assert parse_config(merge(MASK_RCNN, training)) == parse_config(MASK_RCNN)


def test_no_key_is_both_read_and_ignored() -> None:
    assert not [
        name
        for name in KEYS
        if any(name == ignored or name.startswith(f"{ignored}.") for ignored in IGNORED)
    ]


def test_a_config_that_detectron2_dumped_is_the_config_that_it_was_dumped_from() -> None:
    dumped = Path(__file__).parent / "data" / "dumped_by_detectron2.yaml"
    assert load_config(dumped) == load_config(CONFIGS / "mask_rcnn_r34_conv_heads.yaml")


def test_a_single_problem_takes_one_line() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(with_value("MODEL.RPN.NMS_TRESH", 0.5))
    assert str(raised.value) == (
        "this config is not supported: "
        "MODEL.RPN.NMS_TRESH: 0.5 (not a key of Detectron2's own config, did you mean "
        "MODEL.RPN.NMS_THRESH?)"
    )


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("MODEL.POINT_HEAD.FC_DIM", ", but of PointRend"),
        ("MODEL.RPN.COLOUR", ""),
        ("NMS_THRESH", ""),
        ("MODEL.NMS_THRESH", ""),
    ],
)
def test_a_key_of_another_project_is_not_a_typo(name: str, origin: str) -> None:
    with pytest.raises(ConfigError, match=rf"not a key of Detectron2's own config{origin}\)"):
        parse_config(with_value(name, 1))


def test_a_limit_of_detections_below_0_means_all_that_there_can_be() -> None:
    everything = merge(
        with_value("TEST.DETECTIONS_PER_IMAGE", -1), {"MODEL": {"RPN": {"POST_NMS_TOPK_TEST": 50}}}
    )
    assert parse_config(everything).output.max_detections == 50 * 80


def test_retinanet_leaves_out_detections_for_a_limit_below_0() -> None:
    retinanet = merge(
        read_yaml_config(CONFIGS / "retinanet.yaml"), {"TEST": {"DETECTIONS_PER_IMAGE": -2}}
    )
    config = parse_config(retinanet)
    assert isinstance(config.family, RetinaNetConfig)
    assert config.family.max_detections == -2
    assert config.output.max_detections == 5 * 1000


@pytest.mark.parametrize(("threshold", "least"), [(1.5, 1.0), (-0.5, 0.0), (0.3, 0.3)])
def test_clients_see_thresholds_within_0_to_1(threshold: float, least: float) -> None:
    explicit = with_value("MODEL.ROI_HEADS.SCORE_THRESH_TEST", threshold)
    assert rcnn(explicit).roi_heads.selection.score_threshold == threshold
    assert parse_config(explicit).output.score_threshold == least


@pytest.mark.parametrize("ratios", [[0.5, 1.0], [[0.5, 1.0]], [[0.5, 1.0]] * 5])
def test_one_list_of_anchors_is_for_all_levels(ratios: object) -> None:
    explicit = merge(
        with_value("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", ratios),
        {"MODEL": {"ANCHOR_GENERATOR": {"SIZES": [32, 64, 128]}}},
    )
    anchors = rcnn(explicit).rpn.anchors
    assert anchors.sizes == ((32.0, 64.0, 128.0),) * 5
    assert anchors.ratios == ((0.5, 1.0),) * 5


def test_levels_need_equally_many_anchors() -> None:
    sizes = [[32], [64], [128], [256], [512, 640]]
    with pytest.raises(ConfigError, match=r"ANCHOR_GENERATOR\.SIZES: .* must give each level"):
        parse_config(with_value("MODEL.ANCHOR_GENERATOR.SIZES", sizes))


def test_one_deviation_is_for_all_channels() -> None:
    assert parse_config(with_value("MODEL.PIXEL_STD", [57.0])).input.pixel_std == (57.0,) * 3


def test_precomputed_proposals_are_not_read_beside_a_proposal_network() -> None:
    assert parse_config(with_value("MODEL.LOAD_PROPOSALS", True)) == parse_config(MASK_RCNN)


def test_the_norm_of_a_pyramid_without_a_name_has_no_bias_in_its_place() -> None:
    backbone = parse_config(with_value("MODEL.FPN.NORM", None)).backbone
    assert isinstance(backbone, BackboneConfig)
    assert backbone.fpn is not None
    assert backbone.fpn.norm == NO_NORM_NO_BIAS
    assert rcnn(with_value("MODEL.ROI_BOX_HEAD.NORM", None)).roi_heads.box.norm == ""


def c4(**keys: object) -> dict[str, Any]:
    return merge(read_yaml_config(CONFIGS / "mask_rcnn_c4.yaml"), {"MODEL": keys})


@pytest.mark.parametrize("section", ["RPN", "ROI_HEADS"])
def test_only_feature_maps_that_the_backbone_returns_are_read(section: str) -> None:
    with pytest.raises(ConfigError, match=rf"{section}\.IN_FEATURES: \['res3'\]"):
        parse_config(c4(**{section: {"IN_FEATURES": ["res3"]}}))


def test_masks_of_res5_heads_are_pooled_as_their_boxes() -> None:
    ignored = c4(ROI_MASK_HEAD={"POOLER_TYPE": "Mine", "POOLER_RESOLUTION": 0})
    assert parse_config(ignored) == parse_config(c4())


@pytest.mark.parametrize(
    "values",
    [
        {"ROI_BOX_HEAD": {"NUM_CONV": 0, "CONV_DIM": 0, "NORM": "Mine"}},
        {"ROI_BOX_HEAD": {"NUM_CONV": -1, "CONV_DIM": -1}},
        {"ROI_BOX_HEAD": {"NUM_CONV": 1, "NUM_FC": -1, "FC_DIM": 0}},
        {"ROI_MASK_HEAD": {"NUM_CONV": 0, "NORM": "Mine"}},
        {"RESNETS": {"DEFORM_NUM_GROUPS": 0}},
        {"RESNETS": {"DEFORM_NUM_GROUPS": -1, "DEFORM_ON_PER_STAGE": [0, 0.0, False, False]}},
        {"RESNETS": {"DEFORM_MODULATED": 1, "DEFORM_ON_PER_STAGE": [False] * 5}},
    ],
    ids=str,
)
def test_values_of_layers_that_do_not_exist_are_not_checked(values: dict[str, Any]) -> None:
    parse_config(merge(MASK_RCNN, {"MODEL": values}))


@pytest.mark.parametrize("groups", [0, -1])
def test_deformable_convolutions_need_a_group(groups: int) -> None:
    deform = {"DEFORM_ON_PER_STAGE": [0, 0, 0, 1], "DEFORM_NUM_GROUPS": groups}
    with pytest.raises(ConfigError, match=rf"DEFORM_NUM_GROUPS: {groups} \(supported: .*1"):
        parse_config(merge(MASK_RCNN, {"MODEL": {"RESNETS": deform}}))


@pytest.mark.parametrize("limit", [0, -5])
@pytest.mark.parametrize("config", ["rpn_fpn", "mask_rcnn_r50"])
def test_clients_see_a_limit_of_at_least_one_detection(config: str, limit: int) -> None:
    few = {"MODEL": {"RPN": {"POST_NMS_TOPK_TEST": limit}}, "TEST": {"DETECTIONS_PER_IMAGE": -1}}
    parsed = parse_config(merge(read_yaml_config(CONFIGS / f"{config}.yaml"), few))
    assert parsed.output.max_detections >= (1 if limit == 0 else 5 * 300)


@pytest.mark.parametrize("name", ["RRPN", "DeFRCN", "PrecomputedProposals"])
def test_only_precomputed_proposals_are_said_to_need_what_clients_do_not_send(name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(with_value("MODEL.PROPOSAL_GENERATOR.NAME", name))
    assert ("Fast R-CNN" in str(raised.value)) == (name == "PrecomputedProposals")


def semantic(**keys: object) -> dict[str, Any]:
    base = read_yaml_config(CONFIGS / "semantic_fpn.yaml")
    return merge(base, {"MODEL": {"SEM_SEG_HEAD": keys}})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IN_FEATURES", ["p2", "p6"]),  # fits images of some sizes only
        ("IN_FEATURES", ["stem", "res5"]),
        ("COMMON_STRIDE", 7),
        ("COMMON_STRIDE", 8),
        ("COMMON_STRIDE", 40),
    ],
)
def test_levels_of_pixel_classes_must_meet_on_one_grid(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"SEM_SEG_HEAD\.{name}: "):
        parse_config(semantic(**{name: value}))


@pytest.mark.parametrize(("levels", "stride"), [(["p2"], 1), (["p4", "p3"], 8), (["p5"], 32)])
def test_grids_of_pixel_classes(levels: list[str], stride: int) -> None:
    family = parse_config(semantic(IN_FEATURES=levels, COMMON_STRIDE=stride)).family
    assert isinstance(family, SemanticConfig)
    assert family.in_features == tuple(sorted(levels))


def test_pixel_classes_leave_out_levels_that_the_backbone_does_not_have() -> None:
    more = ["stem", "p2", "p3", "p4", "p5", "p9"]
    assert parse_config(semantic(IN_FEATURES=more)) == parse_config(semantic())


def test_retinanet_without_candidates_has_a_limit_of_one_detection() -> None:
    base = read_yaml_config(CONFIGS / "retinanet.yaml")
    none = {
        "MODEL": {"RETINANET": {"TOPK_CANDIDATES_TEST": 0}},
        "TEST": {"DETECTIONS_PER_IMAGE": -1},
    }
    assert parse_config(merge(base, none)).output.max_detections == 1
