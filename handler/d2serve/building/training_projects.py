"""Projects that train Detectron2's networks with few, unlabelled or unknown objects."""

from d2serve.building.projects import Project, ProjectModel

ARCHITECTURE = "MODEL.META_ARCHITECTURE"
HEADS = "MODEL.ROI_HEADS.NAME"
UNBIASED_TEACHER = (
    "EMAMODEL.*",
    "MODEL.PROPOSAL_GENERATOR.NAME=PseudoLabRPN",
    "MODEL.ROI_HEADS.LOSS",
    "MODEL.RPN.LOSS",
    "MODEL.RPN.UNSUP_LOSS_WEIGHT",
    "SEMISUPNET.[!D]*",
    "TEST.EVALUATOR",
    "TEST.VAL_LOSS",
    f"{HEADS}=StandardROIHeadsPseudoLab",
)
FSDET = (
    "MODEL.BACKBONE.FREEZE",
    "MODEL.PROPOSAL_GENERATOR.FREEZE",
    "MODEL.ROI_HEADS.COSINE_SCALE",
    "MODEL.ROI_HEADS.FREEZE_FEAT",
    "MODEL.ROI_HEADS.OUTPUT_LAYER",
)
TRAINING_PROJECTS = (
    Project(
        "CutLER",
        "github.com/facebookresearch/CutLER",
        ("TEST.NO_SEGM",),
        (ProjectModel("CutLER", ("MODEL.ROI_HEADS.*DROPLOSS*",), supported=True),),
    ),
    Project(
        "Unbiased Teacher",
        "github.com/facebookresearch/unbiased-teacher",
        UNBIASED_TEACHER,
        (
            ProjectModel("a variant", (f"{ARCHITECTURE}=TwoStagePseudoLabGeneralizedRCNN?*",)),
            ProjectModel(
                "Unbiased Teacher",
                (f"{ARCHITECTURE}=TwoStagePseudoLabGeneralizedRCNN",),
                supported=True,
            ),
        ),
    ),
    Project(
        "Unbiased Teacher v2",
        "github.com/facebookresearch/unbiased-teacher-v2",
        (
            *UNBIASED_TEACHER,
            "MODEL.FCOS.*",
            "MODEL.BACKBONE.NAME=build_fcos_*fpn_backbone",
            "MODEL.PROPOSAL_GENERATOR.NAME=FCOS",
            f"{ARCHITECTURE}=OneStageDetector",
            "MODEL.ROI_BOX_HEAD.BBOX_PSEUDO_REG_LOSS_TYPE",
            "MODEL.ROI_HEADS.LOSS=*_BoundaryVar",
            "SEMISUPNET.*",
        ),
        (
            ProjectModel(
                "Faster R-CNN",
                (f"{ARCHITECTURE}=TwoStagePseudoLabGeneralizedRCNN",),
                supported=True,
            ),
            ProjectModel(
                "FCOS",
                (
                    "MODEL.FCOS.KL_LOSS",
                    "MODEL.FCOS.NMS_CRITERIA_*",
                    "MODEL.FCOS.REG_DISCRETE",
                    "SEMISUPNET.*_CTR_*",
                    "SEMISUPNET.PSEUDO_*_REG",
                ),
            ),
        ),
    ),
    Project(
        "Adaptive Teacher",
        "github.com/facebookresearch/adaptive_teacher",
        (*UNBIASED_TEACHER, "SEMISUPNET.DIS_*", "UNBIASEDTEACHER.*"),
        (
            ProjectModel("VGG16", ("MODEL.BACKBONE.NAME=build_vgg_backbone",)),
            ProjectModel(
                "Adaptive Teacher",
                (f"{ARCHITECTURE}=DA*TwoStagePseudoLabGeneralizedRCNN",),
                supported=True,
            ),
        ),
    ),
    Project(
        "Active Teacher",
        "github.com/HunterJ-Lin/ActiveTeacher",
        (*UNBIASED_TEACHER, "MODEL.ROI_MASK_HEAD.NAME=MaskRCNNConvUpsampleHeadPseudoLab"),
        (
            ProjectModel(
                "Active Teacher",
                (f"{ARCHITECTURE}=TwoStageTeacherStudentGeneralizedRCNN",),
                supported=True,
            ),
        ),
    ),
    Project(
        "CSD",
        "github.com/vlfom/CSD-detectron2",
        ("VIS_IMS_PER_GROUP", "VIS_MAX_PREDS_PER_IM", "VIS_TEST", f"{HEADS}=CSDStandardROIHeads"),
        (ProjectModel("CSD", (f"{ARCHITECTURE}=CSDGeneralizedRCNN",), supported=True),),
    ),
    Project(
        "OWOD",
        "github.com/JosephKJ/OWOD",
        (),
        (ProjectModel("OWOD", ("OWOD.*",)),),
    ),
    Project(
        "FsDet",
        "github.com/ucbdrive/few-shot-object-detection",
        FSDET,
        (ProjectModel("FsDet", ("MODEL.ROI_HEADS.OUTPUT_LAYER",), supported=True),),
    ),
    Project(
        "iMTFA",
        "github.com/danganea/iMTFA",
        (
            *FSDET,
            "INPUT.EXAMPLES_PER_SHOT",
            "INPUT.NORMALIZE_SHOTS",
            "INPUT.USE_TRANSFORM_METRIC_AVERAGING",
            "MODEL.GT_TEST_PROPOSALS",
            "MODEL.ROI_HEADS.ALPHA_WEIGHTING",
            "TEST.EVAL_METHOD*",
            "TEST.MODEL_METHOD",
        ),
        (
            ProjectModel(
                "iMTFA",
                ("MODEL.ROI_HEADS.FREEZE_BOX_HEAD", "MODEL.ROI_MASK_HEAD.FREEZE*"),
                supported=True,
            ),
        ),
    ),
    Project(
        "FSCE",
        "github.com/MegviiDetection/FSCE",
        (
            *FSDET,
            "MODEL.MOCO.*",
            "MODEL.ROI_BOX_HEAD.CONTRASTIVE_BRANCH.*",
            "MODEL.ROI_HEADS.UNFREEZE_FC?",
            f"{HEADS}=DoubleHeadROIHeads",
            f"{HEADS}=MoCoROIHeads*",
        ),
        (ProjectModel("FSCE", (f"{HEADS}=Contrastive*",), supported=True),),
    ),
    Project(
        "DeFRCN",
        "github.com/er-muyue/DeFRCN",
        (
            "MODEL.BACKBONE.FREEZE",
            "MODEL.R*.BACKWARD_SCALE",
            "MODEL.ROI_HEADS.CLS_DROPOUT",
            "MODEL.ROI_HEADS.DROPOUT_RATIO",
            "MODEL.ROI_HEADS.FREEZE_FEAT",
            "MODEL.ROI_HEADS.OUTPUT_LAYER",
            "MODEL.RPN.FREEZE",
            "TEST.PCB_*",
        ),
        (ProjectModel("DeFRCN", ("MODEL.R*.ENABLE_DECOUPLE",), supported=True),),
    ),
    Project(
        "MoCo",
        "github.com/facebookresearch/moco",
        (),
        (ProjectModel("MoCo", (f"{HEADS}=Res5ROIHeadsExtraNorm",)),),
    ),
)
