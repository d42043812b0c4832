"""RetinaNet and Detectron2's FCOS in lazy configs."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from d2serve.building.checkpoint_loading import build_from_checkpoint
from d2serve.building.config import load_config, parse_config, read_config
from d2serve.model.config import ModelConfig
from d2serve.model.fcos_config import FCOSConfig, TowerConfig
from d2serve.model.meta_arch import build_network
from tests.building.test_lazy_model import changed, config_error
from tests.goldens.cases import VARIANT_CONFIGS

FCOS = read_config(VARIANT_CONFIGS / "lazy_fcos.yaml")
RETINANET = read_config(VARIANT_CONFIGS / "lazy_retinanet.yaml")
LAYERS = "detectron2.modeling.backbone"
SIZES = [[x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in [32, 64, 128, 256, 512]]
# A ResNet, as in Detectron2's configs/common/models/retinanet.py.
RESNET = {
    "_target_": f"{LAYERS}.FPN",
    "bottom_up": {
        "_target_": f"{LAYERS}.ResNet",
        "stem": {"_target_": f"{LAYERS}.BasicStem", "norm": "FrozenBN", "out_channels": 64},
        "stages": {
            "_target_": f"{LAYERS}.ResNet.make_default_stages",
            "depth": 50,
            "norm": "FrozenBN",
            "stride_in_1x1": True,
        },
        "out_features": ["res3", "res4", "res5"],
        "freeze_at": 2,
    },
    "in_features": ["res3", "res4", "res5"],
    "out_channels": 256,
    "top_block": {
        "_target_": f"{LAYERS}.fpn.LastLevelP6P7",
        "in_channels": 2048,
        "out_channels": 256,
    },
}
PUBLISHED = {
    "model.backbone": RESNET,
    "model.head.conv_dims": [256] * 4,
    "model.head.num_anchors": 9,
    "model.head.num_classes": 80,
    "model.num_classes": 80,
    "model.anchor_generator.sizes": SIZES,
    "model.max_detections_per_image": None,
    "model.test_score_thresh": None,
    "input.min_size": 800,
    "input.max_size": 1333,
}
KEYED = {
    "MODEL": {
        "META_ARCHITECTURE": "RetinaNet",
        "BACKBONE": {"NAME": "build_retinanet_resnet_fpn_backbone"},
        "RESNETS": {"OUT_FEATURES": ["res3", "res4", "res5"], "NORM": "FrozenBN"},
        "FPN": {"IN_FEATURES": ["res3", "res4", "res5"]},
        "ANCHOR_GENERATOR": {"SIZES": SIZES},
    },
    "VERSION": 2,
}


def fcos(**changes: Any) -> ModelConfig:
    return parse_config(changed(FCOS, {f"model.{name}": value for name, value in changes.items()}))


def test_a_retinanet_is_that_of_the_keyed_config() -> None:
    assert parse_config(changed(RETINANET, PUBLISHED)) == parse_config(KEYED)


def test_the_defaults_of_fcos() -> None:
    unset = dict.fromkeys(("max_detections_per_image", "test_nms_thresh", "test_score_thresh"))
    config = fcos(**unset)
    assert isinstance(config.family, FCOSConfig)
    assert config.family.score_threshold == pytest.approx(0.04)
    assert replace(config.family, score_threshold=0.0) == FCOSConfig(
        in_features=("p3", "p4", "p5", "p6", "p7"),
        num_classes=5,
        share=TowerConfig(0),
        classes=TowerConfig(2),
        boxes=TowerConfig(2),
        norm="GN",
        use_scale=False,
        score_threshold=0.0,
        threshold_with_quality=True,
        topk_per_level=1000,
        nms_threshold=0.6,
        max_detections=100,
    )
    assert config.output.score_threshold == pytest.approx(0.2)


def test_no_score_is_below_a_negative_threshold() -> None:
    found = fcos(test_score_thresh=-0.5)
    assert isinstance(found.family, FCOSConfig)
    assert found.family.score_threshold < 0
    assert found.output.score_threshold == 0.0


@pytest.mark.parametrize(
    ("base", "changes", "named"),
    [
        (FCOS, {"head.norm": "BN"}, "model.head.norm: 'BN' (supported: '' or 'GN'"),
        (FCOS, {"head.conv_dims": [16]}, "model.head.conv_dims: [16] (must be 32"),
        (FCOS, {"head.num_classes": 6}, "model.head.num_classes: 6 (must be 5)"),
        (FCOS, {"box2box_transform": {}}, "model.box2box_transform: {} (supported: only None)"),
        (FCOS, {"backbone.top_block.in_feature": "res5"}, "in_feature: 'res5' (must be 'p5' for"),
        (FCOS, {"backbone.top_block.out_channels": 16}, "out_channels: 16 (must be 32)"),
        (FCOS, {"anchor_generator": 1}, "model.anchor_generator: 1 (supported: only without it)"),
        (RETINANET, {"head.num_anchors": 9}, "model.head.num_anchors: 9 (must be 6)"),
        (RETINANET, {"_target_": "mine.Net"}, "or 'RetinaNet' or 'FCOS'"),
    ],
    ids=str,
)
def test_other_values_are_refused(
    base: dict[str, Any], changes: dict[str, Any], named: str
) -> None:
    message = config_error(base, {f"model.{name}": value for name, value in changes.items()})
    assert named in message
    assert "\n" not in message


def test_a_checkpoint_has_detectron2s_names() -> None:
    config = load_config(VARIANT_CONFIGS / "lazy_fcos.yaml")
    state = build_network(config).state_dict()
    given = {
        name.replace("proposal_generator.fcos_head.", "head.")
        .replace("_tower.", "_subnet.")
        .replace("cls_logits.", "cls_score."): tensor
        for name, tensor in state.items()
    }
    assert "head.bbox_subnet.3.weight" in given
    loaded = build_from_checkpoint(config, given, torch.device("cpu")).state_dict()
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor), name
