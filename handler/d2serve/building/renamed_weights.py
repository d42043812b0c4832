"""Names of weights in checkpoints of other projects -> names in d2serve's networks.

These projects keep a convolution, its norm and its ReLU as three modules of a sequence.
"""

import re
from collections.abc import Container

# Patterns of parts of a name and what replaces them; all that match apply, in this order.
RENAMES = (
    # VoVNet: `stem.stem_1/conv.weight`, `stage2.OSA2_1.layers.0.OSA2_1_0/norm.weight`.
    (re.compile(r"\bstem\.(stem_\d)/"), r"stem.\1./"),
    (re.compile(r"\.OSA\d+_\w+/"), "./"),
    (re.compile(r"\./dw_conv3x3\."), ".depthwise."),
    (re.compile(r"\./pw_conv1x1\."), ".pointwise."),
    (re.compile(r"\./pw_norm\."), ".pointwise.norm."),
    (re.compile(r"\./conv_offset\."), ".offset."),
    (re.compile(r"\./conv\."), "."),
    (re.compile(r"\./norm\."), ".norm."),
    # Deformable convolutions of FCOS: `cls_tower.9.conv.weight` beside `cls_tower.9.offset.weight`.
    (re.compile(r"(_tower\.\d+)\.conv\."), r"\1."),
    # Mask2Former and MaskFormer: earlier versions.
    (
        re.compile(
            r"^sem_seg_head\.(?=(?:adapter_|input_proj|layer_|mask_features|transformer\.))"
        ),
        "sem_seg_head.pixel_decoder.",
    ),
    (re.compile(r"\.static_query\."), ".query_feat."),
    # CondInst: `mask_branch.refine.0.0.weight`, `mask_branch.tower.2.1.running_mean`.
    (re.compile(r"(\bmask_branch\.(?:refine|tower)\.\d+)\.0\."), r"\1."),
    (re.compile(r"(\bmask_branch\.(?:refine|tower)\.\d+)\.1\."), r"\1.norm."),
)

# Names of Detectron2's FCOS, which its RetinaNet has too.
OF_FCOS = (
    (re.compile(r"^head\.(cls|bbox)_subnet\."), r"proposal_generator.fcos_head.\1_tower."),
    (re.compile(r"^head\.cls_score\."), "proposal_generator.fcos_head.cls_logits."),
    (re.compile(r"^head\.(?=bbox_pred\.|ctrness\.)"), "proposal_generator.fcos_head."),
)


def name_in_network(name: str, expected: Container[str]) -> str:
    """Return the name of a weight in d2serve's network.

    Args:
        name: in a checkpoint.
        expected: the names in the network.

    Examples:
        >>> name_in_network("head.ctrness.bias", {"proposal_generator.fcos_head.ctrness.bias"})
        'proposal_generator.fcos_head.ctrness.bias'
        >>> name_in_network("head.cls_score.bias", {"roi_heads.box_predictor.cls_score.bias"})
        'head.cls_score.bias'
    """
    if name in expected:
        return name
    other = of_fcos(name)
    return other if other in expected else renamed(name)


def of_fcos(name: str) -> str:
    """Return the name in d2serve's network of a weight of Detectron2's FCOS."""
    for pattern, replacement in OF_FCOS:
        name = pattern.sub(replacement, name)
    return name


def renamed(name: str) -> str:
    """Return the name in d2serve's networks of a weight of another project.

    Examples:
        >>> renamed("backbone.bottom_up.stage3.OSA3_1.concat.OSA3_1_concat/norm.bias")
        'backbone.bottom_up.stage3.OSA3_1.concat.norm.bias'
        >>> renamed("mask_branch.tower.4.weight")
        'mask_branch.tower.4.weight'
    """
    for pattern, replacement in RENAMES:
        name = pattern.sub(replacement, name)
    return name
