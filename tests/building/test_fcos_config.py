"""Configs and checkpoints of FCOS, CondInst, CenterMask2 and VoVNet."""

from pathlib import Path
from typing import Any

import pytest
import torch

from d2serve.building.checkpoint_loading import build_from_checkpoint
from d2serve.building.config import load_config, parse_config
from d2serve.building.renamed_weights import renamed
from d2serve.building.yaml_config import merge, read_yaml_config
from d2serve.errors import ConfigError
from d2serve.model.meta_arch import build_network
from d2serve.model.serialization import decode_config, encode_config
from tests.goldens.cases import CONFIGS

NAMES = ("fcos", "condinst", "center_mask_vovnet", "mask_rcnn_vovnet")
# Names in the projects' checkpoints, as their own networks have them.
PROJECT_NAMES = {
    "backbone.bottom_up.stem.stem_1/conv.weight": "backbone.bottom_up.stem.stem_1.weight",
    "backbone.bottom_up.stem.stem_2/dw_conv3x3.weight": (
        "backbone.bottom_up.stem.stem_2.depthwise.weight"
    ),
    "backbone.bottom_up.stem.stem_3/pw_norm.running_mean": (
        "backbone.bottom_up.stem.stem_3.pointwise.norm.running_mean"
    ),
    "backbone.bottom_up.stage2.OSA2_1.layers.0.OSA2_1_0/pw_conv1x1.weight": (
        "backbone.bottom_up.stage2.OSA2_1.layers.0.pointwise.weight"
    ),
    "backbone.bottom_up.stage4.OSA4_2.layers.3.OSA4_2_3/norm.bias": (
        "backbone.bottom_up.stage4.OSA4_2.layers.3.norm.bias"
    ),
    "backbone.bottom_up.stage5.OSA5_1.layers.0.OSA5_1_0/conv_offset.bias": (
        "backbone.bottom_up.stage5.OSA5_1.layers.0.offset.bias"
    ),
    "backbone.bottom_up.stage2.OSA2_1.conv_reduction.OSA2_1_reduction_0/conv.weight": (
        "backbone.bottom_up.stage2.OSA2_1.conv_reduction.weight"
    ),
    "proposal_generator.fcos_head.cls_tower.9.conv.bias": (
        "proposal_generator.fcos_head.cls_tower.9.bias"
    ),
    "mask_branch.refine.1.1.running_var": "mask_branch.refine.1.norm.running_var",
    "mask_branch.tower.0.0.weight": "mask_branch.tower.0.weight",
    # Of other networks.
    "backbone.bottom_up.res2.0.conv1.norm.weight": "backbone.bottom_up.res2.0.conv1.norm.weight",
    "proposal_generator.fcos_head.cls_tower.0.weight": (
        "proposal_generator.fcos_head.cls_tower.0.weight"
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_file_keeps_the_config(name: str) -> None:
    config = load_config(CONFIGS / f"{name}.yaml")
    assert decode_config(encode_config(config)) == config


@pytest.mark.parametrize(("given", "name"), PROJECT_NAMES.items())
def test_weights_have_the_names_of_their_projects(given: str, name: str) -> None:
    assert renamed(given) == name


def test_weights_that_only_training_uses_are_left_out() -> None:
    config = load_config(CONFIGS / "condinst.yaml")
    given = build_network(config).state_dict()
    given["mask_branch.refine.0.0.weight"] = given.pop("mask_branch.refine.0.weight") + 1
    extra = ("mask_branch.seg_head.0.0.weight", "mask_branch.logits.bias", "mask_head._iter")
    unused = {name: torch.zeros(1) for name in (*extra, "mask_head.sizes_of_interest")}
    network = build_from_checkpoint(config, {**given, **unused}, torch.device("cpu"))
    loaded = network.state_dict()["mask_branch.refine.0.weight"]
    assert torch.equal(loaded, given["mask_branch.refine.0.0.weight"])


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        ("fcos", {"FCOS": {"NORM": "IN"}}, r"MODEL\.FCOS\.NORM: 'IN' \(supported: 'GN'"),
        ("fcos", {"FCOS": {"NORM": "GN"}}, r"MODEL\.FPN\.OUT_CHANNELS: 16 \(must be a multiple of"),
        (
            "fcos",
            {"FCOS": {"FPN_STRIDES": [8, 16]}},
            r"FPN_STRIDES: .* \(must be \[8, 16, 32, 64\]",
        ),
        ("fcos", {"FCOS": {"TOP_LEVELS": 0}}, r"FCOS\.IN_FEATURES: .* \(supported: levels of"),
        ("fcos", {"MOBILENET": True}, "MobileNetV2 of AdelaiDet"),
        ("fcos", {"RESNETS": {"DEFORM_INTERVAL": 3}}, r"DEFORM_INTERVAL: 3 \(supported: only 1"),
        ("fcos", {"PROPOSAL_GENERATOR": {"NAME": "RPN"}}, r"NAME: 'RPN' \(must be 'FCOS'"),
        ("fcos", {"META_ARCHITECTURE": "ProposalNetwork"}, r"NAME: 'FCOS' \(must be 'RPN'"),
        ("fcos", {"BACKBONE": {"NAME": "build_fcos_dla_fpn_backbone"}}, "DLA of AdelaiDet"),
        ("fcos", {"META_ARCHITECTURE": "SOLOv2"}, "SOLOv2 of AdelaiDet"),
        ("condinst", {"FCOS": {"SIZES_OF_INTEREST": [64]}}, r"INTEREST: \[64\] \(must have 4"),
        ("condinst", {"CONDINST": {"MASK_OUT_STRIDE": 16}}, r"STRIDE: 16 \(must be .* at most 8"),
        (
            "condinst",
            {"CONDINST": {"MASK_BRANCH": {"IN_FEATURES": ["p4", "p3"]}}},
            r"IN_FEATURES: .* \(must begin with the finest level",
        ),
        (
            "center_mask_vovnet",
            {"FCOS": {"USE_DEFORMABLE": True}},
            r"USE_DEFORMABLE: True \(must be False for CenterROIHeads\)",
        ),
        ("center_mask_vovnet", {"KEYPOINT_ON": True}, r"KEYPOINT_ON: True \(must be False for"),
        ("center_mask_vovnet", {"ROI_HEADS": {"NUM_CLASSES": 4}}, r"NUM_CLASSES: 4 \(must be at"),
        (
            "center_mask_vovnet",
            {"ROI_MASK_HEAD": {"POOLER_RESOLUTION": 7}},
            r"POOLER_RESOLUTION: 7 \(must be even",
        ),
        (
            "center_mask_vovnet",
            {"ROI_MASK_HEAD": {"CONV_DIM": 8}},
            r"CONV_DIM: 8 \(must be MODEL\.FPN\.OUT_CHANNELS",
        ),
        ("center_mask_vovnet", {"MASK_ON": False}, r"MASKIOU_ON: True \(must be False if"),
        (
            "mask_rcnn_vovnet",
            {"ROI_MASK_HEAD": {"NAME": "SpatialAttentionMaskHead", "ASSIGN_CRITERION": "area"}},
            r"NAME: 'SpatialAttentionMaskHead' \(requires .* CenterROIHeads\)",
        ),
        ("mask_rcnn_vovnet", {"VOVNET": {"CONV_BODY": "V-27"}}, r"CONV_BODY: 'V-27' \(supported"),
        ("mask_rcnn_vovnet", {"VOVNET": {"NORM": "GN"}}, r"VOVNET\.NORM: 'GN' \(V-19-slim-dw"),
        ("mask_rcnn_vovnet", {"VOVNET": {"OUT_FEATURES": ["res2"]}}, r"\(supported: stage2, "),
        (
            "center_mask_vovnet",
            {"VOVNET": {"DEFORMABLE_GROUPS": 3}},
            r"DEFORMABLE_GROUPS: 3 \(must divide",
        ),
    ],
)
def test_unsupported_values_are_named(base: str, changes: dict[str, Any], message: str) -> None:
    explicit = merge(read_yaml_config(CONFIGS / f"{base}.yaml"), {"MODEL": changes})
    with pytest.raises(ConfigError, match=message):
        parse_config(explicit)


@pytest.mark.parametrize(
    "changes",
    [
        {"FCOS": {"LOSS_ALPHA": 0.5, "POS_RADIUS": 2.0, "YIELD_PROPOSAL": True}},
        {"CONDINST": {"MAX_PROPOSALS": 500, "MASK_BRANCH": {"SEMANTIC_LOSS_ON": True}}},
        {"BOXINST": {"ENABLED": True, "PAIRWISE": {"COLOR_THRESH": 0.3}}},
        {"SOLOV2": {"NUM_CLASSES": 3}, "BASIS_MODULE": {"NAME": "ProtoNet"}},
    ],
)
def test_keys_of_training_and_of_other_networks_are_ignored(changes: dict[str, Any]) -> None:
    explicit = read_yaml_config(CONFIGS / "condinst.yaml")
    assert parse_config(merge(explicit, {"MODEL": changes})) == parse_config(explicit)


def test_keys_of_fcos_are_unknown_in_other_configs(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("MODEL: {CONDINSTS: {MASK_OUT_STRIDE: 4}}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"MODEL\.CONDINSTS\.MASK_OUT_STRIDE: 4 \(not a key"):
        load_config(config)
