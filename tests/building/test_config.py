"""Supported keyed configs, and the errors for unsupported ones."""

from pathlib import Path
from typing import Any

import pytest

from d2serve.building.config import load_config, parse_config
from d2serve.building.config_keys import IGNORED, KEYS
from d2serve.building.yaml_config import merge
from d2serve.errors import ConfigError, MisspelledKeyError
from d2serve.model.backbone_config import BackboneConfig
from d2serve.model.config import RCNNConfig
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
    resnet, family = config.backbone.resnet, rcnn(MASK_RCNN)
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
        pytest.param("INPUT.FORMAT", "L", id="grey input"),
        pytest.param("INPUT.MIN_SIZE_TEST", -1, id="negative size"),
        pytest.param("INPUT.MIN_SIZE_TEST", "800", id="text for a number"),
        pytest.param("TEST.DETECTIONS_PER_IMAGE", True, id="truth for a number"),
        pytest.param("MODEL.META_ARCHITECTURE", "DETR", id="another architecture"),
        pytest.param("MODEL.BACKBONE.NAME", "build_regnet_backbone", id="another backbone"),
        pytest.param("MODEL.RESNETS.DEPTH", 26, id="unknown depth"),
        pytest.param("MODEL.RESNETS.NORM", "LN", id="layer norm"),
        pytest.param("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, 1], id="two stages"),
        pytest.param("MODEL.RESNETS.OUT_FEATURES", ["res4"], id="too few stages"),
        pytest.param("MODEL.FPN.IN_FEATURES", ["res3", "res5"], id="pyramid with a gap"),
        pytest.param("MODEL.PIXEL_MEAN", [1.0], id="one channel"),
        pytest.param("MODEL.PIXEL_STD", [0, 1, 1], id="deviation of 0"),
        pytest.param("MODEL.LOAD_PROPOSALS", True, id="Fast R-CNN"),
        pytest.param("MODEL.RPN.IN_FEATURES", ["p2", "p4"], id="a gap between levels"),
        pytest.param("MODEL.RPN.NMS_THRESH", 1.5, id="threshold over 1"),
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
    config = merge(with_value("MODEL.LOAD_PROPOSALS", True), {"INPUT": {"FORMAT": "YUV"}, "X": 1})
    with pytest.raises(ConfigError) as raised:
        parse_config(config)
    for name in ("MODEL.LOAD_PROPOSALS: True", "INPUT.FORMAT: 'YUV'", "X: 1"):
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
    "name", ["MODEL.POINT_HEAD.FC_DIM", "MODEL.RPN.COLOUR", "NMS_THRESH", "MODEL.NMS_THRESH"]
)
def test_a_key_of_another_project_is_not_a_typo(name: str) -> None:
    with pytest.raises(ConfigError, match=r"not a key of Detectron2's own config\)") as raised:
        parse_config(with_value(name, 1))
    assert not isinstance(raised.value, MisspelledKeyError)
