"""Configs of projects whose networks are Detectron2's, or differ by a layer."""

from typing import Any

import pytest

from d2serve.building.config import parse_config
from d2serve.building.yaml_config import merge, read_yaml_config
from d2serve.errors import UnsupportedConfigError
from d2serve.model.config import ModelConfig, RCNNConfig
from d2serve.model.heads_config import ROIHeadsConfig
from tests.building.test_unknown_keys import nested
from tests.goldens.cases import CONFIGS


def parsed(base: str, keys: dict[str, Any]) -> ModelConfig:
    return parse_config(merge(read_yaml_config(CONFIGS / f"{base}.yaml"), nested(keys)))


def heads(base: str, keys: dict[str, Any]) -> ROIHeadsConfig:
    family = parsed(base, keys).family
    assert isinstance(family, RCNNConfig)
    return family.roi_heads


PSEUDO_LABELS = {
    "MODEL.PROPOSAL_GENERATOR.NAME": "PseudoLabRPN",
    "MODEL.ROI_HEADS.NAME": "StandardROIHeadsPseudoLab",
    "MODEL.ROI_HEADS.LOSS": "FocalLoss",
    "MODEL.RPN.UNSUP_LOSS_WEIGHT": 1.0,
    "SEMISUPNET.EMA_KEEP_RATE": 0.9996,
    "EMAMODEL.SUP_CONSIST": True,
    "TEST.EVALUATOR": "COCOeval",
    "TEST.VAL_LOSS": False,
}


@pytest.mark.parametrize(
    ("base", "keys"),
    [
        pytest.param(
            "mask_rcnn_r50",
            {"MODEL.META_ARCHITECTURE": "TwoStagePseudoLabGeneralizedRCNN", **PSEUDO_LABELS},
            id="Unbiased Teacher",
        ),
        pytest.param(
            "mask_rcnn_r50",
            {
                "MODEL.META_ARCHITECTURE": "DAobjTwoStagePseudoLabGeneralizedRCNN",
                "SEMISUPNET.DIS_TYPE": "p2",
                **PSEUDO_LABELS,
            },
            id="Adaptive Teacher",
        ),
        pytest.param(
            "mask_rcnn_r50",
            {
                "MODEL.META_ARCHITECTURE": "TwoStageTeacherStudentGeneralizedRCNN",
                "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHeadPseudoLab",
                **PSEUDO_LABELS,
            },
            id="Active Teacher",
        ),
        pytest.param(
            "mask_rcnn_r50",
            {
                "MODEL.META_ARCHITECTURE": "CSDGeneralizedRCNN",
                "MODEL.ROI_HEADS.NAME": "CSDStandardROIHeads",
                "USE_WANDB": True,
                "VIS_IMS_PER_GROUP": 3,
            },
            id="CSD",
        ),
        pytest.param(
            "cascade_mask_rcnn_gn",
            {
                "MODEL.ROI_HEADS.NAME": "CustomCascadeROIHeads",
                "MODEL.ROI_HEADS.USE_DROPLOSS": True,
                "MODEL.ROI_HEADS.DROPLOSS_IOU_THRESH": 0.01,
                "TEST.NO_SEGM": True,
            },
            id="CutLER",
        ),
        pytest.param(
            "mask_rcnn_r50",
            {"DOMAIN_ADAPT.TEACHER.ENABLED": True, "EMA.ENABLED": True, "AUG.MIC_RATIO": 0.5},
            id="ALDI",
        ),
        pytest.param(
            "mask_rcnn_r50",
            {"EMA.ENABLED": True, "MODEL.CONVNEXT.DEPTHS": [3, 3, 9, 3]},
            id="ALDI with all keys",
        ),
        pytest.param(
            "mask_rcnn_r50",
            {"USE_WANDB": True, "WANDB_PROJECT_NAME": "csd-detectron2", "VIS_TEST": True},
            id="baseline of CSD",
        ),
        pytest.param(
            "fcos",
            {"MODEL.FCPOSE_ON": False, "MODEL.FCPOSE.FOCUS_STYLE": "linear"},
            id="AdelaiDet with all keys",
        ),
        pytest.param(
            "faster_rcnn_cosine",
            {
                "MODEL.ROI_HEADS.FREEZE_BOX_HEAD": True,
                "MODEL.ROI_MASK_HEAD.FREEZE_WITHOUT_PREDICTOR": True,
                "INPUT.NORMALIZE_SHOTS": True,
                "TEST.MODEL_METHOD": "default",
            },
            id="iMTFA",
        ),
        pytest.param(
            "mask_rcnn_r50",
            {
                "MODEL.META_ARCHITECTURE": "ActiveLearningRCNN",
                "MODEL.ROI_HEADS.NAME": "ROIHeadsAL",
                "AL.MODE": "object",
            },
            id="Detectron2_AL",
        ),
        pytest.param(
            "mask_rcnn_r50",
            {"MODEL.BACKBONE.FREEZE": True, "MODEL.ROI_HEADS.OUTPUT_LAYER": "FastRCNNOutputLayers"},
            id="FsDet with linear scores",
        ),
        pytest.param(
            "faster_rcnn_cosine",
            {
                "MODEL.ROI_HEADS.NAME": "ContrastiveROIHeads",
                "MODEL.ROI_BOX_HEAD.CONTRASTIVE_BRANCH.MLP_FEATURE_DIM": 128,
                "MODEL.MOCO.ENABLED": False,
                "MODEL.DLA.ARCH": "DLA-34",
            },
            id="FSCE",
        ),
        pytest.param(
            "mask_rcnn_c4",
            {"MODEL.RPN.ENABLE_DECOUPLE": False, "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14},
            id="DeFRCN without affine layers",
        ),
    ],
)
def test_a_project_of_training_has_a_standard_network(base: str, keys: dict[str, Any]) -> None:
    assert parsed(base, keys) == parsed(base, {})


@pytest.mark.parametrize(
    ("keys", "scale"),
    [
        ({"MODEL.ROI_HEADS.COSINE_SCALE": -1}, -1.0),
        ({"MODEL.ROI_HEADS.COSINE_SCALE": 10}, 10.0),
        ({}, 20.0),
    ],
)
def test_the_scale_of_cosine_similarities(keys: dict[str, Any], scale: float) -> None:
    cosine = {"MODEL.ROI_HEADS.OUTPUT_LAYER": "CosineSimOutputLayers"}
    assert heads("mask_rcnn_r50", {**cosine, **keys}).predictor.cosine_scale == scale


def test_the_default_resolution_of_defrcn() -> None:
    assert heads("mask_rcnn_c4", {"MODEL.RPN.FREEZE": True}).pooler.resolution == 7
    assert heads("mask_rcnn_c4", {}).pooler.resolution == 14


@pytest.mark.parametrize(
    ("base", "keys", "problem"),
    [
        (
            "faster_rcnn_cosine",
            {"MODEL.ROI_HEADS.FREEZE_BOX_HEAD": True, "TEST.EVAL_METHOD": "like_fgn"},
            "TEST.EVAL_METHOD: 'like_fgn' (supported: only 'default')",
        ),
        (
            "mask_rcnn_c4",
            {"TEST.PCB_ENABLE": True},
            "TEST.PCB_ENABLE: True (supported: only False, for the network's own scores; the "
            "calibration compares each detection with the training images by another network)",
        ),
        (
            "mask_rcnn_r50",
            {"MODEL.RPN.ENABLE_DECOUPLE": True},
            "MODEL.ROI_HEADS.NAME: 'StandardROIHeads' (must be 'Res5ROIHeads': DeFRCN's others "
            "have two box heads)",
        ),
        (
            "cascade_mask_rcnn_gn",
            {"MODEL.ROI_HEADS.OUTPUT_LAYER": "CosineSimOutputLayers"},
            "MODEL.ROI_HEADS.OUTPUT_LAYER: 'CosineSimOutputLayers' (has no effect on "
            "CascadeROIHeads in its project)",
        ),
        (
            "mask_rcnn_r50",
            {
                "MODEL.ROI_HEADS.OUTPUT_LAYER": "CosineSimOutputLayers",
                "MODEL.ROI_HEADS.COSINE_SCALE": "20",
            },
            "MODEL.ROI_HEADS.COSINE_SCALE: '20' (supported: a number)",
        ),
        (
            "mask_rcnn_c4",
            {"MODEL.RPN.ENABLE_DECOUPLE": 1},
            "MODEL.RPN.ENABLE_DECOUPLE: 1 (supported: True or False)",
        ),
    ],
)
def test_other_values_of_few_shot_detectors_are_refused(
    base: str, keys: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UnsupportedConfigError) as raised:
        parsed(base, keys)
    assert problem in raised.value.problems
