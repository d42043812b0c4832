"""Keys of few-shot detectors."""

from dataclasses import replace

from d2serve.building.extension import Extension
from d2serve.building.key_types import flag, integer, number, one_of, only

LINEAR_LAYERS = "FastRCNNOutputLayers"
COSINE_LAYERS = "CosineSimOutputLayers"
OUTPUT_LAYER = "MODEL.ROI_HEADS.OUTPUT_LAYER"
COSINE_SCALE = "MODEL.ROI_HEADS.COSINE_SCALE"
PCB = "TEST.PCB_ENABLE"
# Of both projects.
FROZEN = ("MODEL.BACKBONE.FREEZE", "MODEL.ROI_HEADS.FREEZE_FEAT", "MUTE_HEADER")
FSDET = Extension(
    markers=(
        COSINE_SCALE,
        OUTPUT_LAYER,
        "MODEL.BACKBONE.FREEZE",
        "MODEL.PROPOSAL_GENERATOR.FREEZE",
        "MODEL.ROI_HEADS.FREEZE_FEAT",
    ),
    keys={
        OUTPUT_LAYER: one_of(LINEAR_LAYERS, COSINE_LAYERS),
        # -1 for a scale among the weights.
        COSINE_SCALE: number(20.0),
    },
    ignored=(*FROZEN, "MODEL.PROPOSAL_GENERATOR.FREEZE"),
)
CONTRAST = "MODEL.ROI_BOX_HEAD.CONTRASTIVE_BRANCH"
FSCE = Extension(
    markers=(
        f"{CONTRAST}.*",
        "MODEL.ROI_HEADS.NAME=Contrastive*",
        "MODEL.ROI_HEADS.UNFREEZE_FC?",
    ),
    aliases={
        "MODEL.ROI_HEADS.NAME": {
            "ContrastiveROIHeads": "StandardROIHeads",
            "ContrastiveROIHeadsPrototypeWithMLP": "StandardROIHeads",
            "ContrastiveROIHeadsWithPrototype": "StandardROIHeads",
            "ContrastiveROIHeadsWithStorage": "StandardROIHeads",
        }
    },
    ignored=(
        "INPUT.ALBUMENTATIONS_JSON",
        "INPUT.USE_ALBUMENTATIONS",
        "INPUT.USE_TRANSFORM_AUG",
        "INPUT.VIS_PERIOD",
        "MODEL.BACKBONE.FREEZE_P5",
        # Of a backbone with a name of its own.
        "MODEL.DLA",
        "MODEL.MOCO",
        "MODEL.ROI_BOX_HEAD.BOX_CLS_WEIGHT",
        "MODEL.ROI_BOX_HEAD.BOX_REG_WEIGHT",
        "MODEL.ROI_BOX_HEAD.SUB_FC_DIM",
        "MODEL.ROI_HEADS.COSINE_MARGIN",
        "MODEL.ROI_HEADS.UNFREEZE_FC1",
        "MODEL.ROI_HEADS.UNFREEZE_FC2",
        CONTRAST,
    ),
)
DEFRCN = Extension(
    markers=(
        "MODEL.R*.BACKWARD_SCALE",
        "MODEL.R*.ENABLE_DECOUPLE",
        "MODEL.ROI_HEADS.CLS_DROPOUT",
        "MODEL.RPN.FREEZE",
        "TEST.PCB_*",
    ),
    keys={
        OUTPUT_LAYER: only(LINEAR_LAYERS),
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": integer(7, 1),
        "MODEL.ROI_HEADS.ENABLE_DECOUPLE": flag(False),
        "MODEL.RPN.ENABLE_DECOUPLE": flag(False),
        PCB: replace(
            only(False),
            allowed="only False, for the network's own scores; the calibration compares each "
            "detection with the training images by another network",
        ),
    },
    ignored=(
        *FROZEN,
        "MODEL.ROI_HEADS.BACKWARD_SCALE",
        "MODEL.ROI_HEADS.CLS_DROPOUT",
        "MODEL.ROI_HEADS.DROPOUT_RATIO",
        "MODEL.RPN.BACKWARD_SCALE",
        "MODEL.RPN.FREEZE",
        "TEST.PCB_ALPHA",
        "TEST.PCB_LOWER",
        "TEST.PCB_MODELPATH",
        "TEST.PCB_MODELTYPE",
        "TEST.PCB_UPPER",
    ),
)
# Other tests of this project: with given boxes, or with the classes of each image alone.
IMTFA_TESTS = {
    "MODEL.GT_TEST_PROPOSALS": only(False),
    "TEST.EVAL_METHOD": only("default"),
    "TEST.MODEL_METHOD": only("default"),
}
IMTFA = Extension(
    markers=("MODEL.ROI_HEADS.FREEZE_BOX_HEAD", "MODEL.ROI_MASK_HEAD.FREEZE*"),
    keys=IMTFA_TESTS,
    ignored=(
        "INPUT.EXAMPLES_PER_SHOT",
        "INPUT.NORMALIZE_SHOTS",
        "INPUT.USE_TRANSFORM_METRIC_AVERAGING",
        "MODEL.ROI_HEADS.ALPHA_WEIGHTING",
        "MODEL.ROI_HEADS.FREEZE_BOX_HEAD",
        "MODEL.ROI_MASK_HEAD.FREEZE",
        "MODEL.ROI_MASK_HEAD.FREEZE_WITHOUT_PREDICTOR",
        "TEST.EVAL_METHOD_WAYS",
    ),
)
FEW_SHOT = (FSDET, FSCE, DEFRCN, IMTFA)
