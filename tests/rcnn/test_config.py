"""Which configs are served, and what the others are told."""

from pathlib import Path
from typing import Any

import pytest

from handler.rcnn.config import ConfigError, load_config, parse_config
from handler.rcnn.config_keys import IGNORED, KEYS
from handler.rcnn.yaml_config import merge
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


def test_absent_keys_take_detectron2s_defaults() -> None:
    config = parse_config(MASK_RCNN)
    assert config.resnet.depth == 50
    assert config.resnet.stride_in_1x1
    assert config.input.channel_order == "BGR"
    assert config.input.pixel_mean == (103.53, 116.28, 123.675)
    assert (config.input.min_size, config.input.max_size) == (800, 1333)
    assert config.rpn.anchor_ratios == ((0.5, 1.0, 2.0),) * 5
    assert (config.rpn.pre_nms_topk, config.rpn.post_nms_topk) == (6000, 1000)
    assert config.roi_heads.num_classes == 80
    assert config.roi_heads.score_threshold == 0.05
    assert config.roi_heads.max_detections == 100
    assert config.roi_heads.box.box_weights == (10.0, 10.0, 5.0, 5.0)
    assert config.roi_heads.box.pooler.aligned
    assert config.roi_heads.mask is not None


def test_a_config_without_masks_has_no_mask_head() -> None:
    assert parse_config(with_value("MODEL.MASK_ON", False)).roi_heads.mask is None


def test_what_only_masks_need_is_not_asked_of_a_box_model() -> None:
    boxes_only = merge(with_value("MODEL.ROI_MASK_HEAD.NORM", "GN"), {"MODEL": {"MASK_ON": False}})
    assert parse_config(boxes_only).roi_heads.mask is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("VERSION", 1, id="old format"),
        pytest.param("INPUT.FORMAT", "L", id="grey input"),
        pytest.param("INPUT.MIN_SIZE_TEST", -1, id="negative size"),
        pytest.param("INPUT.MIN_SIZE_TEST", "800", id="text for a number"),
        pytest.param("TEST.DETECTIONS_PER_IMAGE", True, id="truth for a number"),
        pytest.param("MODEL.META_ARCHITECTURE", "RetinaNet", id="another architecture"),
        pytest.param("MODEL.BACKBONE.NAME", "build_resnet_backbone", id="C4 backbone"),
        pytest.param("MODEL.RESNETS.DEPTH", 26, id="unknown depth"),
        pytest.param("MODEL.RESNETS.NORM", "GN", id="group norm"),
        pytest.param("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, True], id="dconv"),
        pytest.param("MODEL.RESNETS.OUT_FEATURES", ["res4"], id="too few stages"),
        pytest.param("MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"], id="pyramid from res3"),
        pytest.param("MODEL.PIXEL_MEAN", [1.0], id="one channel"),
        pytest.param("MODEL.PIXEL_STD", [0, 1, 1], id="deviation of 0"),
        pytest.param("MODEL.KEYPOINT_ON", True, id="keypoints"),
        pytest.param("MODEL.RPN.IN_FEATURES", ["p2", "p4"], id="a gap between levels"),
        pytest.param("MODEL.RPN.NMS_THRESH", 1.5, id="threshold over 1"),
        pytest.param("MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64]], id="too few anchor levels"),
        pytest.param("MODEL.ANCHOR_GENERATOR.SIZES", 32, id="a number for lists"),
        pytest.param("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", id="cascade"),
        pytest.param("MODEL.ROI_HEADS.IN_FEATURES", ["res4"], id="not of the pyramid"),
        pytest.param("MODEL.ROI_BOX_HEAD.NUM_FC", 0, id="box head without layers"),
        pytest.param("MODEL.ROI_MASK_HEAD.NAME", "PointRendMaskHead", id="another mask head"),
        pytest.param("MODEL.POINT_HEAD.NUM_FC", 3, id="a key of a project"),
        pytest.param("MY_KEY", "mine", id="a key of one's own"),
    ],
)
def test_what_is_not_supported_is_named_with_its_value(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(with_value(name, value))
    key = name.removeprefix("MODEL.ROI_BOX_HEAD.") if value == 0 else name
    assert key in str(raised.value)
    assert repr(value) in str(raised.value)


def test_all_problems_are_told_at_once() -> None:
    config = merge(with_value("MODEL.KEYPOINT_ON", True), {"INPUT": {"FORMAT": "YUV"}, "X": 1})
    with pytest.raises(ConfigError) as raised:
        parse_config(config)
    for name in ("MODEL.KEYPOINT_ON: True", "INPUT.FORMAT: 'YUV'", "X: 1"):
        assert name in str(raised.value)


@pytest.mark.parametrize("depth", [18, 34])
def test_basic_blocks_need_64_channels(depth: int) -> None:
    shallow = with_value("MODEL.RESNETS.DEPTH", depth)
    with pytest.raises(ConfigError, match=r"RES2_OUT_CHANNELS: 256 \(must be 64"):
        parse_config(shallow)
    parse_config(merge(shallow, {"MODEL": {"RESNETS": {"RES2_OUT_CHANNELS": 64}}}))


def test_what_only_training_reads_is_ignored() -> None:
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
