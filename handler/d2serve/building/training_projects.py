"""Projects that train Detectron2's networks with few, unlabelled or unknown objects."""

from d2serve.building.projects import Project

UNBIASED_TEACHER = (
    "EMAMODEL.*",
    "MODEL.ROI_HEADS.LOSS",
    "MODEL.RPN.LOSS",
    "MODEL.RPN.UNSUP_LOSS_WEIGHT",
    "SEMISUPNET.[!D]*",
    "TEST.EVALUATOR",
    "TEST.VAL_LOSS",
)
TRAINING_PROJECTS = (
    Project("CutLER", "github.com/facebookresearch/CutLER", ("MODEL.ROI_HEADS.*DROPLOSS*",)),
    Project(
        "Unbiased Teacher",
        "github.com/facebookresearch/unbiased-teacher",
        UNBIASED_TEACHER,
    ),
    Project(
        "Adaptive Teacher",
        "github.com/facebookresearch/adaptive_teacher",
        (*UNBIASED_TEACHER, "SEMISUPNET.DIS_*", "UNBIASEDTEACHER.*"),
    ),
    Project("OWOD", "github.com/JosephKJ/OWOD", ("OWOD.*",)),
    Project(
        "FsDet",
        "github.com/ucbdrive/few-shot-object-detection",
        (
            "MODEL.BACKBONE.FREEZE",
            "MODEL.PROPOSAL_GENERATOR.FREEZE",
            "MODEL.ROI_HEADS.COSINE_SCALE",
            "MODEL.ROI_HEADS.FREEZE_FEAT",
            "MODEL.ROI_HEADS.OUTPUT_LAYER",
        ),
    ),
    Project(
        "DeFRCN",
        "github.com/er-muyue/DeFRCN",
        (
            "MODEL.BACKBONE.FREEZE",
            "MODEL.R*.BACKWARD_SCALE",
            "MODEL.R*.ENABLE_DECOUPLE",
            "MODEL.ROI_HEADS.CLS_DROPOUT",
            "MODEL.ROI_HEADS.DROPOUT_RATIO",
            "MODEL.ROI_HEADS.FREEZE_FEAT",
            "MODEL.ROI_HEADS.OUTPUT_LAYER",
            "MODEL.RPN.FREEZE",
            "TEST.PCB_*",
        ),
    ),
)
