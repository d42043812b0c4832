"""Keys of projects whose networks differ from Detectron2's in training only."""

from d2serve.building.extension import Extension

ARCHITECTURE = "MODEL.META_ARCHITECTURE"
HEADS = "MODEL.ROI_HEADS.NAME"
MASK_HEAD = "MODEL.ROI_MASK_HEAD.NAME"
PROPOSALS = "MODEL.PROPOSAL_GENERATOR.NAME"
RCNN = "GeneralizedRCNN"
STANDARD_HEADS = "StandardROIHeads"
TEACHER_AND_STUDENT = Extension(
    markers=(
        "EMAMODEL.*",
        "SEMISUPNET.*",
        f"{ARCHITECTURE}=*TwoStagePseudoLabGeneralizedRCNN",
        f"{ARCHITECTURE}=TwoStageTeacherStudentGeneralizedRCNN",
        f"{HEADS}=StandardROIHeadsPseudoLab",
        f"{PROPOSALS}=PseudoLabRPN",
    ),
    aliases={
        ARCHITECTURE: {
            "DAobjTwoStagePseudoLabGeneralizedRCNN": RCNN,
            "TwoStagePseudoLabGeneralizedRCNN": RCNN,
            "TwoStageTeacherStudentGeneralizedRCNN": RCNN,
        },
        PROPOSALS: {"PseudoLabRPN": "RPN"},
        HEADS: {"StandardROIHeadsPseudoLab": STANDARD_HEADS},
        MASK_HEAD: {"MaskRCNNConvUpsampleHeadPseudoLab": "MaskRCNNConvUpsampleHead"},
    },
    ignored=(
        "CONSISTENCY",
        "EMAMODEL",
        "MODEL.ROI_BOX_HEAD.BBOX_PSEUDO_REG_LOSS_TYPE",
        "MODEL.ROI_HEADS.LOSS",
        "MODEL.RPN.LOSS",
        "MODEL.RPN.UNSUP_LOSS_WEIGHT",
        "NIGHTAUG",
        "SEMISUPNET",
        "STUDENT_SCALE",
        "TEST.EVALUATOR",
        "TEST.VAL_LOSS",
        "UNBIASEDTEACHER",
    ),
)
# A dumped config of version 2 has its FCOS too.
TWO_STAGES = Extension(markers=(f"{HEADS}=StandardROIHeadsPseudoLab",), ignored=("MODEL.FCOS",))
CSD = Extension(
    markers=(
        f"{ARCHITECTURE}=CSDGeneralizedRCNN",
        f"{HEADS}=CSDStandardROIHeads",
        "WANDB_PROJECT_NAME=csd-detectron2",
    ),
    aliases={
        ARCHITECTURE: {"CSDGeneralizedRCNN": RCNN},
        HEADS: {"CSDStandardROIHeads": STANDARD_HEADS},
    },
    ignored=(
        "USE_WANDB",
        "VIS_IMS_PER_GROUP",
        "VIS_MAX_PREDS_PER_IM",
        "VIS_TEST",
        "WANDB_PROJECT_NAME",
    ),
)
CUTLER = Extension(
    markers=(
        "MODEL.ROI_HEADS.*DROPLOSS*",
        "TEST.NO_SEGM",
        f"{HEADS}=CustomCascadeROIHeads",
        f"{HEADS}=CustomStandardROIHeads",
    ),
    aliases={
        HEADS: {
            "CustomCascadeROIHeads": "CascadeROIHeads",
            "CustomStandardROIHeads": STANDARD_HEADS,
        }
    },
    ignored=(
        "MODEL.ROI_HEADS.DROPLOSS_IOU_THRESH",
        "MODEL.ROI_HEADS.USE_DROPLOSS",
        "TEST.NO_SEGM",
    ),
)
ALDI = Extension(
    markers=("DOMAIN_ADAPT.*", "EMA.*"),
    # The keys of a backbone with a name of its own are in every dumped config.
    ignored=("AUG", "DOMAIN_ADAPT", "EMA", "MODEL.CONVNEXT", "VIT.USE_ACT_CHECKPOINT"),
)
ACTIVE_LEARNING = Extension(
    markers=(f"{ARCHITECTURE}=ActiveLearningRCNN", f"{HEADS}=ROIHeadsAL"),
    aliases={ARCHITECTURE: {"ActiveLearningRCNN": RCNN}, HEADS: {"ROIHeadsAL": STANDARD_HEADS}},
    ignored=("AL",),
)
TRAINING = (TEACHER_AND_STUDENT, TWO_STAGES, CSD, CUTLER, ALDI, ACTIVE_LEARNING)
