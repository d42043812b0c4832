"""Detectron1's checkpoints under Detectron2's names.

The names are those of Detectron1's model zoo. The expected names and rows were compared with
upstream's own loader on Detectron2's configs.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from d2serve.building.caffe2 import convert_caffe2
from d2serve.building.checkpoint import read_checkpoint
from d2serve.building.checkpoint_loading import load_from_checkpoint
from tests.building.checkpoint.saving import Array, save
from tests.goldens.cases import CONFIGS, GoldenModel

LAST_BLOCKS = {"2": 2, "3": 3, "4": 5, "5": 2}


@pytest.mark.parametrize(
    ("blob", "name"),
    [
        ("conv1_w", "stem.conv1.weight"),
        ("res_conv1_bn_s", "stem.conv1.norm.weight"),
        ("res_conv1_bn_b", "stem.conv1.norm.bias"),
        ("conv1_gn_s", "stem.conv1.norm.weight"),
        ("res2_0_branch1_w", "res2.0.shortcut.weight"),
        ("res2_0_branch1_bn_rm", "res2.0.shortcut.norm.running_mean"),
        ("res2_0_branch1_bn_riv", "res2.0.shortcut.norm.running_var"),
        ("res2_0_branch1_bn_running_mean", "res2.0.shortcut.norm.running_mean"),
        ("res2_0_branch1_bn_gamma", "res2.0.shortcut.norm.weight"),
        ("res2_0_branch1_bn_beta", "res2.0.shortcut.norm.bias"),
        ("res4_22_branch2a_bn_s", "res4.22.conv1.norm.weight"),
        ("res4_22_branch2b_gn_b", "res4.22.conv2.norm.bias"),
        ("res5_2_branch2c_w", "res5.2.conv3.weight"),
        ("fpn_inner_res5_2_sum_w", "fpn_lateral5.weight"),
        ("fpn_inner_res4_22_sum_lateral_b", "fpn_lateral4.bias"),
        ("fpn_inner_res3_3_sum_lateral_gn_s", "fpn_lateral3.norm.weight"),
        ("fpn_res2_2_sum_w", "fpn_output2.weight"),
        ("fpn_res2_2_sum_gn_b", "fpn_output2.norm.bias"),
        ("fpn_6_w", "top_block.p6.weight"),
        ("conv_rpn_fpn2_w", "proposal_generator.rpn_head.conv.weight"),
        ("conv_rpn_b", "proposal_generator.rpn_head.conv.bias"),
        ("rpn_bbox_pred_fpn2_w", "proposal_generator.rpn_head.anchor_deltas.weight"),
        ("rpn_bbox_pred_w", "proposal_generator.rpn_head.anchor_deltas.weight"),
        ("rpn_cls_logits_fpn2_b", "proposal_generator.rpn_head.objectness_logits.bias"),
        ("rpn_cls_logits_b", "proposal_generator.rpn_head.objectness_logits.bias"),
        ("fc6_w", "box_head.fc1.weight"),
        ("fc7_b", "box_head.fc2.bias"),
        ("head_conv4_w", "box_head.conv4.weight"),
        ("head_conv4_gn_s", "box_head.conv4.norm.weight"),
        ("_[mask]_fcn1_w", "mask_head.mask_fcn1.weight"),
        ("_mask_fcn4_gn_s", "mask_head.mask_fcn4.norm.weight"),
        ("conv5_mask_w", "mask_head.deconv.weight"),
        ("conv_fcn8_w", "roi_heads.keypoint_head.conv_fcn8.weight"),
        ("kps_score_lowres_w", "roi_heads.keypoint_head.score_lowres.weight"),
        ("kps_score_b", "roi_heads.keypoint_head.score.bias"),
        ("retnet_cls_conv_n0_fpn3_w", "head.cls_subnet.0.weight"),
        ("retnet_bbox_conv_n3_fpn3_b", "head.bbox_subnet.6.bias"),
        ("retnet_cls_pred_fpn3_w", "head.cls_score.weight"),
        ("retnet_bbox_pred_fpn3_b", "head.bbox_pred.bias"),
    ],
)
def test_a_blob_keeps_its_numbers_under_detectron2s_name(blob: str, name: str) -> None:
    numbers = torch.arange(8.0)
    [(converted, tensor)] = convert_caffe2({blob: numbers}).items()
    assert converted == name
    assert torch.equal(tensor, numbers)


@pytest.mark.parametrize(
    ("blob", "name", "expected"),
    [
        ("cls_score_b", "cls_score.bias", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0]),
        ("bbox_pred_b", "bbox_pred.bias", [4, 5, 6, 7, 8, 9, 10, 11]),
        ("mask_fcn_logits_b", "mask_head.predictor.bias", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    ],
)
def test_the_background_class_is_moved_or_dropped(
    blob: str, name: str, expected: list[int]
) -> None:
    assert convert_caffe2({blob: torch.arange(12)})[name].tolist() == expected


@pytest.mark.parametrize("blob", ["fc6_w_momentum", "fc1000_w", "pred_b", "conv1_b"])
def test_unused_blobs_of_detectron1_are_ignored(blob: str) -> None:
    assert list(convert_caffe2({blob: torch.zeros(3), "fc6_b": torch.zeros(3)})) == [
        "box_head.fc1.bias"
    ]


def form(blobs: dict[str, Array], kind: str) -> object:
    match kind:
        case "zoo":
            return {"model": blobs, "__author__": "Caffe2", "matching_heuristics": True}
        case "Detectron1":
            momenta = {f"{name}_momentum": np.zeros(1, np.float32) for name in blobs}
            return {"blobs": blobs | momenta, "cfg": "NUM_GPUS: 8"}
        case _:
            return blobs


@pytest.mark.parametrize("kind", ["zoo", "Detectron1", "bare"])
def test_a_mask_rcnn_of_detectron1_fills_our_network(tmp_path: Path, kind: str) -> None:
    golden = GoldenModel("mask_rcnn_r50", CONFIGS / "mask_rcnn_r50.yaml", None, ())
    trained = golden.build().state_dict()
    blobs = dict(to_blob(name, tensor) for name, tensor in trained.items() if "running" not in name)
    fresh = golden.build()
    for tensor in fresh.state_dict().values():
        tensor.fill_(7)
    load_from_checkpoint(
        fresh, read_checkpoint(save(tmp_path / "model_final.pkl", form(blobs, kind)))
    )
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, folded(name, trained[name])), name


def folded(name: str, tensor: Tensor) -> Tensor:
    """Detectron1's norms are scale and shift alone."""
    statistics = {"running_mean": torch.zeros_like, "running_var": torch.ones_like}
    make: Any = statistics.get(name.rpartition(".")[2], lambda same: same)
    return make(tensor)


def to_blob(name: str, tensor: Tensor) -> tuple[str, Array]:
    """One of our Mask R-CNN's tensors as Detectron1 names it and orders its rows."""
    module, _, parameter = name.rpartition(".")
    ending = {"weight": "_w", "bias": "_b"}[parameter]
    if module.endswith(".norm"):
        module = module.removesuffix(".norm")
        ending = {"weight": "_bn_s", "bias": "_bn_b"}[parameter]
    if module.endswith(("cls_score", "bbox_pred", "mask_head.predictor")):
        tensor = with_background(module, tensor)
    return blob_name(module, ending), tensor.numpy()


def with_background(module: str, rows: Tensor) -> Tensor:
    if module.endswith("cls_score"):
        return torch.cat([rows[-1:], rows[:-1]])
    unused = torch.full((4 if module.endswith("bbox_pred") else 1, *rows.shape[1:]), 99.0)
    return torch.cat([unused, rows])


def blob_name(module: str, ending: str) -> str:
    branches = {"shortcut": "1", "conv1": "2a", "conv2": "2b", "conv3": "2c"}
    heads = {
        "proposal_generator.rpn_head.conv": "conv_rpn_fpn2",
        "proposal_generator.rpn_head.anchor_deltas": "rpn_bbox_pred_fpn2",
        "proposal_generator.rpn_head.objectness_logits": "rpn_cls_logits_fpn2",
        "roi_heads.box_head.fc1": "fc6",
        "roi_heads.box_head.fc2": "fc7",
        "roi_heads.box_predictor.cls_score": "cls_score",
        "roi_heads.box_predictor.bbox_pred": "bbox_pred",
        "roi_heads.mask_head.deconv": "conv5_mask",
        "roi_heads.mask_head.predictor": "mask_fcn_logits",
    }
    if module in heads:
        return heads[module] + ending
    if module.endswith("stem.conv1"):
        return ("res_conv1" if "bn" in ending else "conv1") + ending
    if block := re.search(r"(res\d)\.(\d+)\.(\w+)$", module):
        return f"{block[1]}_{block[2]}_branch{branches[block[3]]}{ending}"
    if level := re.search(r"fpn_(lateral|output)(\d)$", module):
        stage = f"res{level[2]}_{LAST_BLOCKS[level[2]]}_sum"
        lateral = "_lateral" if level[2] != "5" else ""
        return (
            f"fpn_inner_{stage}{lateral}{ending}"
            if level[1] == "lateral"
            else f"fpn_{stage}{ending}"
        )
    return "_[mask]_fcn" + module.removeprefix("roi_heads.mask_head.mask_fcn") + ending
