"""Backbones of other projects in keyed configs: Swin, ConvNeXt and DiT."""

from typing import Any

import pytest

from d2serve.building.config import parse_config, read_config
from d2serve.building.yaml_config import merge, read_yaml_config
from d2serve.errors import ConfigError
from d2serve.model.backbone_config import (
    NO_TOP,
    ONE_CONVOLUTION,
    POOLED_TOP,
    TWO_CONVOLUTIONS,
    BackboneConfig,
    ConvNeXtConfig,
)
from d2serve.model.config import ModelConfig
from d2serve.model.serialization import decode_config, encode_config
from d2serve.model.vision_transformer_config import BEiTConfig, SwinConfig
from tests.goldens.cases import CONFIGS

SWIN_FPN, D2_SWIN = "build_swintransformer_fpn_backbone", "D2SwinTransformer"
SWIN_LEVELS = ["swin0", "swin1", "swin2", "swin3"]
DIT, DIT_LEVELS = "build_vit_fpn_backbone", ["layer3", "layer5", "layer7", "layer11"]
LARGE_LEVELS = ["layer7", "layer11", "layer15", "layer23"]
ANCHORS = {"ANCHOR_GENERATOR": {"SIZES": [[32], [64], [128]]}}
OF_RES4 = {
    "RPN": {"IN_FEATURES": ["res4"]},
    "ROI_HEADS": {"IN_FEATURES": ["res4"]},
    "ANCHOR_GENERATOR": {"SIZES": [[32, 64]]},
}


def parse(base: str, **model: Any) -> ModelConfig:
    return parse_config(merge(read_yaml_config(CONFIGS / f"{base}.yaml"), {"MODEL": model}))


def backbone(base: str, name: str, **model: Any) -> BackboneConfig:
    found = parse(base, BACKBONE={"NAME": name}, **model)
    assert decode_config(encode_config(found)) == found
    assert isinstance(found.backbone, BackboneConfig)
    return found.backbone


def refusal(base: str, name: str, **model: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        parse(base, BACKBONE={"NAME": name}, **model)
    return str(raised.value)


@pytest.mark.parametrize(
    ("size", "dim", "depth", "heads", "window"),
    [("T", 96, 6, 24, 7), ("B-22k", 128, 18, 32, 7), ("L-22k-384", 192, 18, 48, 12)],
)
def test_sizes_of_detic_and_diffusiondet(
    size: str, dim: int, depth: int, heads: int, window: int
) -> None:
    found = backbone(
        "mask_rcnn_r50", SWIN_FPN, SWIN={"SIZE": size}, FPN={"IN_FEATURES": SWIN_LEVELS}
    )
    swin = found.bottom_up
    assert isinstance(swin, SwinConfig)
    assert (swin.dim, swin.depths[2], swin.heads[3], swin.window_size) == (
        dim,
        depth,
        heads,
        window,
    )
    assert found.features == ("p2", "p3", "p4", "p5", "p6")


def test_the_pyramids_of_detic_and_diffusiondet_have_other_tops() -> None:
    detic = backbone("retinanet", SWIN_FPN, FPN={"IN_FEATURES": SWIN_LEVELS[1:]})
    diffusion = backbone("mask_rcnn_r50", SWIN_FPN, FPN={"IN_FEATURES": SWIN_LEVELS})
    assert detic.fpn is not None
    assert diffusion.fpn is not None
    assert (detic.fpn.top_block, detic.fpn.top_of_pyramid) == (TWO_CONVOLUTIONS, True)
    assert diffusion.fpn.top_block == POOLED_TOP
    assert detic.bottom_up.features == ("swin1", "swin2", "swin3")


@pytest.mark.parametrize(
    ("levels", "top", "features"),
    [
        (0, NO_TOP, ("p3", "p4", "p5")),
        (1, ONE_CONVOLUTION, ("p3", "p4", "p5", "p6")),
        (2, TWO_CONVOLUTIONS, ("p3", "p4", "p5", "p6", "p7")),
    ],
)
def test_top_levels_of_swint(levels: int, top: str, features: tuple[str, ...]) -> None:
    sizes = [[32]] * len(features)
    found = backbone(
        "retinanet_swint",
        "build_retinanet_swint_fpn_backbone",
        FPN={"TOP_LEVELS": levels},
        RETINANET={"IN_FEATURES": list(features)},
        ANCHOR_GENERATOR={"SIZES": sizes},
    )
    assert found.features == features
    assert found.fpn is not None
    assert (found.fpn.top_block, found.fpn.top_of_pyramid) == (top, levels > 0)


def test_a_swin_transformer_of_mask2former_without_a_pyramid() -> None:
    swin = {"EMBED_DIM": 32, "NUM_HEADS": [2, 4, 8, 16], "QK_SCALE": 0.2, "OUT_FEATURES": ["res4"]}
    found = backbone("mask_rcnn_r50", D2_SWIN, SWIN=swin, MASK_ON=False, **OF_RES4)
    assert isinstance(found.bottom_up, SwinConfig)
    assert found.bottom_up.query_scale == 0.2
    assert (found.features, found.levels) == (("res2", "res3", "res4", "res5"), (2, 3, 4, 5))


def test_networks_of_dit() -> None:
    base = backbone("mask_rcnn_r50", DIT, VIT={"POS_TYPE": "abs"}, FPN={"IN_FEATURES": DIT_LEVELS})
    vit = {"POS_TYPE": "abs", "NAME": "beit_large_patch16", "OUT_FEATURES": LARGE_LEVELS}
    large = backbone("mask_rcnn_r50", DIT, VIT=vit, FPN={"IN_FEATURES": LARGE_LEVELS})
    assert isinstance(base.bottom_up, BEiTConfig)
    assert isinstance(large.bottom_up, BEiTConfig)
    assert (base.bottom_up.dim, base.bottom_up.depth, base.bottom_up.layer_scale) == (768, 12, True)
    assert (large.bottom_up.dim, large.bottom_up.depth) == (1024, 24)
    assert not large.bottom_up.layer_scale


def test_a_convnext_without_layer_scale() -> None:
    found = backbone(
        "faster_rcnn_convnext",
        "build_convnext_fpn_backbone",
        CONVNEXT={"LAYER_SCALE_INIT_VALUE": 0},
    )
    assert isinstance(found.bottom_up, ConvNeXtConfig)
    assert not found.bottom_up.layer_scale


@pytest.mark.parametrize(
    ("base", "name", "model", "message"),
    [
        (
            "mask_rcnn_swint",
            "build_swint_fpn_backbone",
            {"SWINT": {"NUM_HEADS": [3, 2, 2, 4]}},
            "MODEL.SWINT.NUM_HEADS: [3, 2, 2, 4] (3 must divide 16, the channels of its stage)",
        ),
        (
            "mask_rcnn_swint",
            "build_swint_fpn_backbone",
            {"SWINT": {"DEPTHS": [2, 2, 6]}},
            "MODEL.SWINT.DEPTHS: [2, 2, 6] (supported: a list of 4 integers from 1 to 1000)",
        ),
        (
            "mask_rcnn_swint",
            "build_swint_fpn_backbone",
            {"FPN": {"IN_FEATURES": ["stage2", "stage4", "stage5"]}},
            "(must be the last of MODEL.SWINT.OUT_FEATURES, here ['stage2', 'stage3', 'stage4', "
            "'stage5'], up to that of stride 32)",
        ),
        (
            "mask_rcnn_r50",
            D2_SWIN,
            {"SWIN": {"PATCH_SIZE": 2}, "MASK_ON": False, **OF_RES4},
            "MODEL.SWIN.PATCH_SIZE: 2 (must be 4, because res2 has a stride of 4)",
        ),
        (
            "mask_rcnn_r50",
            D2_SWIN,
            {"SWIN": {"OUT_FEATURES": ["stage2"]}, "MASK_ON": False, **OF_RES4},
            "MODEL.SWIN.OUT_FEATURES: ['stage2'] (supported: res2, res3, res4, res5)",
        ),
        (
            "mask_rcnn_r50",
            SWIN_FPN,
            {"SWIN": {"SIZE": "H"}, "FPN": {"IN_FEATURES": SWIN_LEVELS}},
            "MODEL.SWIN.SIZE: 'H' (supported: 'B' or 'T' or 'S'",
        ),
        (
            "mask_rcnn_r50",
            DIT,
            {"FPN": {"IN_FEATURES": DIT_LEVELS}},
            "MODEL.VIT.POS_TYPE: 'shared_rel' (supported: only 'abs')",
        ),
        (
            "mask_rcnn_r50",
            DIT,
            {"VIT": {"POS_TYPE": "abs", "NAME": "mae_base_patch16"}},
            "MODEL.VIT.NAME: 'mae_base_patch16' (supported: 'dit_base_patch16' or",
        ),
        (
            "mask_rcnn_r50",
            DIT,
            {"VIT": {"POS_TYPE": "abs", "OUT_FEATURES": LARGE_LEVELS}},
            "(must be ['layer3', 'layer5', 'layer7', 'layer11'] for dit_base_patch16)",
        ),
        (
            "faster_rcnn_convnext",
            "build_convnext_fpn_backbone",
            {"FPN": {"IN_FEATURES": [0, 1, 4]}},
            "MODEL.FPN.IN_FEATURES: [0, 1, 4] (supported: a list of stages from 0 to 3)",
        ),
        (
            "mask_rcnn_c4",
            "build_swint_backbone",
            {"RPN": {"IN_FEATURES": ["stage4"]}},
            "MODEL.BACKBONE.NAME: 'build_swint_backbone' (must be a ResNet for Res5ROIHeads)",
        ),
    ],
)
def test_unsupported_backbones_are_named(
    base: str, name: str, model: dict[str, Any], message: str
) -> None:
    assert message in refusal(base, name, **model)


def test_layoutlmv3_is_refused_by_name() -> None:
    vit = {"POS_TYPE": "abs", "NAME": "layoutlmv3_base"}
    message = refusal("mask_rcnn_r50", DIT, VIT=vit, FPN={"IN_FEATURES": DIT_LEVELS})
    assert "LayoutLMv3" in message


def test_keys_of_a_backbone_are_unknown_with_another_one() -> None:
    message = refusal("mask_rcnn_r50", "build_resnet_fpn_backbone", CONVNEXT={"DIMS": [8] * 4})
    assert "MODEL.CONVNEXT.DIMS" in message


def lazy_swin(**arguments: Any) -> dict[str, Any]:
    config = read_config(CONFIGS / "cascade_mask_rcnn_swin.yaml")
    return merge(config, {"model": {"backbone": {"bottom_up": arguments}}})


def test_a_swin_transformer_of_a_lazy_config() -> None:
    found = parse_config(lazy_swin(ape=True, pretrain_img_size=384, patch_norm=False)).backbone
    assert isinstance(found, BackboneConfig)
    swin = found.bottom_up
    assert isinstance(swin, SwinConfig)
    assert (swin.features, swin.levels) == (("p0", "p1", "p2", "p3"), (2, 3, 4, 5))
    assert (swin.absolute_positions, swin.pretrain_image_size, swin.patch_norm) == (
        True,
        384,
        False,
    )
    assert (swin.qkv_bias, swin.norm_eps, found.square_size) == (False, 1e-5, 256)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_indices": [1, 2, 3]}, "out_indices: [1, 2, 3] (supported: only [0, 1, 2, 3])"),
        ({"num_heads": [3, 2, 4, 4]}, "(3 must divide 16, the channels of its stage)"),
        ({"window": 7}, "model.backbone.bottom_up.window: 7 (supported: only without it)"),
    ],
)
def test_other_swin_transformers_of_lazy_configs_are_named(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(lazy_swin(**arguments))
    assert message in str(raised.value)
