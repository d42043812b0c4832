"""Configs of other projects are refused by the name of their network."""

from typing import Any

import pytest

from tests.building.test_unknown_keys import refusal


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        (
            {"MODEL.META_ARCHITECTURE": "SOLOv2", "MODEL.SOLOV2.NUM_GRIDS": [40]},
            "SOLOv2 of AdelaiDet (github.com/aim-uofa/AdelaiDet)",
        ),
        (
            {"MODEL.META_ARCHITECTURE": "BlendMask", "MODEL.PROPOSAL_GENERATOR.NAME": "FCOS"},
            "BlendMask of AdelaiDet (github.com/aim-uofa/AdelaiDet)",
        ),
        (
            {"MODEL.META_ARCHITECTURE": "CustomRCNN", "MODEL.SWIN.SIZE": "B"},
            "Detic (github.com/facebookresearch/Detic)",
        ),
        (
            {
                "MODEL.META_ARCHITECTURE": "OneFormer",
                "MODEL.ONE_FORMER.NHEADS": 8,
                "MODEL.SEM_SEG_HEAD.MASK_DIM": 256,
            },
            "OneFormer (github.com/SHI-Labs/OneFormer)",
        ),
        (
            {"MODEL.META_ARCHITECTURE": "VideoMaskFormer", "MODEL.MASK_FORMER.NHEADS": 8},
            "VideoMaskFormer of Mask2Former (github.com/facebookresearch/Mask2Former)",
        ),
        (
            {"MODEL.ROI_HEADS.NAME": "AttributeRes5ROIHeads", "MODEL.BUA.EXTRACT_FEATS": False},
            "bottom-up attention of bottom-up-attention.pytorch (github.com/MILVLG/",
        ),
        (
            {"MODEL.BACKBONE.NAME": "build_vgg_backbone", "SEMISUPNET.DIS_TYPE": "vgg4"},
            "VGG16 of Adaptive Teacher (github.com/facebookresearch/adaptive_teacher)",
        ),
        ({"OWOD.ENABLE_CLUSTERING": True}, "OWOD (github.com/JosephKJ/OWOD)"),
        (
            {"MODEL.META_ARCHITECTURE": "MaskDINO", "MODEL.MaskDINO.FIRST_SELECTED_QUERIES": 600},
            "DI-MaskDINO (github.com/CQU-ADHRI-Lab/DI-MaskDINO)",
        ),
        (
            {"MODEL.META_ARCHITECTURE": "GRiT", "MODEL.BACKBONE.NAME": "build_vit_fpn_backbone"},
            "GRiT (github.com/JialianW/GRiT)",
        ),
        (
            {
                "MODEL.META_ARCHITECTURE": "CondInst",
                "MODEL.BACKBONE.NAME": "build_fcos_resnet_bifpn_backbone",
            },
            "BiFPN of AdelaiDet (github.com/aim-uofa/AdelaiDet)",
        ),
        (
            {
                "MODEL.META_ARCHITECTURE": "OneStageDetector",
                "MODEL.PROPOSAL_GENERATOR.NAME": "FCOS",
                "MODEL.FCOS.NMS_CRITERIA_TEST": "cls_n_ctr",
            },
            "FCOS of Unbiased Teacher v2 (github.com/facebookresearch/unbiased-teacher-v2)",
        ),
        (
            {"MODEL.META_ARCHITECTURE": "FCOS", "MODEL.FCOS.NORM_REG_TARGETS": True},
            "FCOS of BCNet (github.com/lkeab/BCNet)",
        ),
        (
            {"MODEL.BACKBONE.NAME": "build_swinb_fpn_backbone", "MODEL.SWINT.EMBED_DIM": 128},
            "Mask Transfiner (github.com/SysCV/transfiner)",
        ),
        (
            {"MODEL.ROI_HEADS.NAME": "AttributeRes5ROIHeads", "MODEL.ATTRIBUTE_ON": True},
            "grid features of grid-feats-vqa (github.com/facebookresearch/grid-feats-vqa)",
        ),
        ({"MODEL.RESNETS.RADIX": 2}, "ResNeSt (github.com/zhanghang1989/detectron2-ResNeSt)"),
        (
            {"MODEL.BACKBONE.CONV_BODY": "R-50-FPN", "DTYPE": "float16"},
            "maskrcnn-benchmark (github.com/facebookresearch/maskrcnn-benchmark)",
        ),
    ],
)
def test_the_network_and_its_project_are_named_in_one_sentence(
    keys: dict[str, Any], name: str
) -> None:
    error = refusal(**keys, **{"MODEL.RPN.NMS_THRESH": "half", "MINE": 1})
    assert len(error.problems) == 1
    assert not error.notes
    assert str(error).startswith(f"this config is not supported: {name}")
    assert str(error).endswith(" is part neither of d2serve nor of the detectron2 package")
    assert not error.package_may_run


def test_values_of_a_supported_network_are_listed() -> None:
    keys = {
        "MODEL.ROI_HEADS.OUTPUT_LAYER": "DoubleHeadLayers",
        "MODEL.BACKBONE.FREEZE": True,
        "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNDoubleHead",
    }
    error = refusal(**keys)
    assert error.notes[-1] == (
        "FsDet (github.com/ucbdrive/few-shot-object-detection) is supported, but not with these "
        "values"
    )
    assert [problem.partition(":")[0] for problem in error.problems] == [
        "MODEL.ROI_BOX_HEAD.NAME",
        "MODEL.ROI_HEADS.OUTPUT_LAYER",
    ]


def test_maskformer_is_not_taken_for_mask2former() -> None:
    keys = {
        "MODEL.META_ARCHITECTURE": "MaskFormer",
        "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead",
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "MyPixelDecoder",
        "MODEL.MASK_FORMER.DEC_LAYERS": 6,
    }
    assert refusal(**keys).notes[-1].startswith("MaskFormer (github.com/facebookresearch/Mask")


def test_a_standard_network_with_a_key_of_a_project_has_no_name() -> None:
    error = refusal(**{"MODEL.YOLO.NUM_CLASSES": 80})
    assert "is part neither" not in str(error)
    assert "MODEL.YOLO.NUM_CLASSES (not Detectron2's own, but a key of yolov7_d2)" in str(error)
