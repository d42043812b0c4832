"""Convert Detectron1's (Caffe2's) weights to Detectron2's names and layouts."""

import re
from collections.abc import Iterable

from torch import Tensor

from d2serve.model.weights import Weights

# Blobs of Detectron1's optimizer and of the ImageNet classifier.
UNUSED = re.compile(r"_momentum$|^conv1_b$|^(fc1000|pred|last_out\w*)_[wb]$")
PARAMETERS = (
    (r"_(?:bn|gn)_(?:s|gamma)$", ".norm.weight"),
    (r"_(?:bn|gn)_(?:b|bias|beta)$", ".norm.bias"),
    (r"_bn_(?:rm|running_mean)$", ".norm.running_mean"),
    (r"_bn_(?:riv|running_var)$", ".norm.running_var"),
    (r"_w$", ".weight"),
    (r"_b$", ".bias"),
)
BACKBONE = (
    (r"^(?:res_)?conv1\.", "stem.conv1."),
    (r"^res(\d)_(\d+)_branch1\.", r"res\1.\2.shortcut."),
    (r"^res(\d)_(\d+)_branch2a\.", r"res\1.\2.conv1."),
    (r"^res(\d)_(\d+)_branch2b\.", r"res\1.\2.conv2."),
    (r"^res(\d)_(\d+)_branch2c\.", r"res\1.\2.conv3."),
    (r"^fpn_inner_res(\d)_\d+_sum(?:_lateral)?\.", r"fpn_lateral\1."),
    (r"^fpn_res(\d)_\d+_sum\.", r"fpn_output\1."),
    (r"^fpn_([67])\.", r"top_block.p\1."),
)
# A head that all levels share is named after the finest one.
RPN = (
    (r"^conv_rpn(?:_fpn\d)?\.", "proposal_generator.rpn_head.conv."),
    (r"^rpn_bbox_pred(?:_fpn\d)?\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"^rpn_cls_logits(?:_fpn\d)?\.", "proposal_generator.rpn_head.objectness_logits."),
)
ROI_HEADS = (
    (r"^fc6\.", "box_head.fc1."),
    (r"^fc7\.", "box_head.fc2."),
    (r"^head_conv(\d+)\.", r"box_head.conv\1."),
    (r"^_(?:\[mask\]|mask)_fcn(\d+)\.", r"mask_head.mask_fcn\1."),
    (r"^conv5_mask\.", "mask_head.deconv."),
    (r"^mask_fcn_logits\.", "mask_head.predictor."),
    (r"^conv_fcn(\d+)\.", r"roi_heads.keypoint_head.conv_fcn\1."),
    (r"^kps_score_lowres\.", "roi_heads.keypoint_head.score_lowres."),
    (r"^kps_score\.", "roi_heads.keypoint_head.score."),
)
RETINANET = (
    (r"^retnet_cls_pred_fpn\d\.", "head.cls_score."),
    (r"^retnet_bbox_pred_fpn\d\.", "head.bbox_pred."),
    # A ReLU follows each convolution of Detectron2's subnets.
    *(
        (rf"^retnet_(cls|bbox)_conv_n{layer}_fpn\d\.", rf"head.\1_subnet.{2 * layer}.")
        for layer in range(10)
    ),
)
RULES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (*PARAMETERS, *BACKBONE, *RPN, *ROI_HEADS, *RETINANET)
)


def has_caffe2_names(names: Iterable[str]) -> bool:
    """Return whether the names are Caffe2's, which have no dots; those of torch modules have."""
    return not any("." in name for name in names)


def convert_caffe2(weights: Weights) -> Weights:
    """Rename Detectron1's weights and reorder the rows of classes as Detectron2 does."""
    kept = {name: tensor for name, tensor in weights.items() if not UNUSED.search(name)}
    renamed = {_rename(name): tensor for name, tensor in kept.items()}
    return {name: _reorder(name, tensor) for name, tensor in renamed.items()}


def _rename(name: str) -> str:
    for pattern, replacement in RULES:
        name = pattern.sub(replacement, name)
    return name


def _reorder(name: str, rows: Tensor) -> Tensor:
    """Move the background, Detectron1's first class; Detectron2 has it last, and only in scores."""
    if name.startswith("cls_score."):
        return rows.roll(-1, dims=0)
    if name.startswith("bbox_pred."):
        return rows[4:]
    return rows[1:] if name.startswith("mask_head.predictor.") else rows
