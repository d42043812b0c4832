"""Projects on top of Detectron2 whose classes are words: open vocabularies and captions."""

from d2serve.building.projects import Project, ProjectModel

ARCHITECTURE = "MODEL.META_ARCHITECTURE"
BACKBONE = "MODEL.BACKBONE.NAME"
PROPOSALS = "MODEL.PROPOSAL_GENERATOR.NAME"
HEADS = "MODEL.ROI_HEADS.NAME"
BOX_HEAD = "MODEL.ROI_BOX_HEAD"
# Projects on top of Detic have its keys and classes too.
DETIC = (
    "FP16",
    "INPUT.CUSTOM_AUG",
    "INPUT.TEST_INPUT_TYPE",
    "INPUT.T*_SIZE",
    "MODEL.BIFPN.*",
    "MODEL.CENTERNET.*",
    "MODEL.DETR.*",
    "MODEL.RESET_CLS_TESTS",
    f"{BOX_HEAD}.CAT_FREQ_PATH",
    f"{BOX_HEAD}.IGNORE_ZERO_CATS",
    f"{BOX_HEAD}.IMAGE_LABEL_LOSS",
    f"{BOX_HEAD}.MULT_PROPOSAL_SCORE",
    f"{BOX_HEAD}.NORM_TEMP",
    f"{BOX_HEAD}.NORM_WEIGHT",
    f"{BOX_HEAD}.USE_ZEROSHOT_CLS",
    f"{BOX_HEAD}.WITH_SOFTMAX_PROP",
    f"{BOX_HEAD}.WS_NUM_PROPS",
    f"{BOX_HEAD}.ZEROSHOT_*",
    "MODEL.ROI_HEADS.ONE_CLASS_PER_PROPOSAL",
    "MODEL.SWIN.*",
    "MODEL.TEST_CLASSIFIERS",
    "MODEL.TEST_NUM_CLASSES",
    "MODEL.TIMM.*",
    "WITH_IMAGE_LABELS",
    f"{PROPOSALS}=CenterNet",
)
DETIC_CLASSES = (
    f"{ARCHITECTURE}=CustomRCNN",
    f"{ARCHITECTURE}=DeformableDetr",
    f"{HEADS}=*DeticCascadeROIHeads",
    f"{HEADS}=CustomRes5ROIHeads",
)
# Of projects with the same keys the first is named.
VOCABULARY_PROJECTS = (
    Project(
        "Detic",
        "github.com/facebookresearch/Detic",
        DETIC,
        (ProjectModel("Detic", DETIC_CLASSES),),
    ),
    Project(
        "VLDet",
        "github.com/clin1223/VLDet",
        (
            *DETIC,
            *DETIC_CLASSES,
            f"{BOX_HEAD}.*CAP*_WEIGHT",
            f"{BOX_HEAD}.ADD_IMAGE_BOX",
            f"{BOX_HEAD}.OT_LOSS_WEIGHT",
            "MODEL.SHARE_PROJ_*",
            "MODEL.WITH_CAPTION",
        ),
        (ProjectModel("VLDet", (f"{BOX_HEAD}.USE_CAPTION", f"{BOX_HEAD}.USE_OT")),),
    ),
    Project(
        "object-centric-ovd",
        "github.com/hanoonaR/object-centric-ovd",
        (*DETIC, *DETIC_CLASSES, "MODEL.DISTIL*", "MODEL.NUM_DISTIL_PROP"),
        (
            ProjectModel(
                "object-centric-ovd",
                (
                    f"{ARCHITECTURE}=CustomRCNNMViT",
                    f"{BOX_HEAD}.WEIGHT_TRANSFER",
                    "MODEL.PIS_PROP_PATH",
                    "MODEL.RKD_*",
                ),
            ),
        ),
    ),
    Project(
        "VLPart",
        "github.com/facebookresearch/VLPart",
        (
            *DETIC,
            "MODEL.ANN_GENERATOR",
            "MODEL.EVAL_*",
            f"{BOX_HEAD}.*_GROUP",
            f"{BOX_HEAD}.MULT_OBJECT_SCORE",
        ),
        (
            ProjectModel(
                "VLPart",
                (
                    f"{ARCHITECTURE}=ParserNet*",
                    f"{ARCHITECTURE}=VLMRCNN",
                    f"{BACKBONE}=build_timm_fpn_backbone",
                    f"{HEADS}=*VLMROIHeads",
                ),
            ),
        ),
    ),
    Project(
        "GRiT",
        "github.com/JialianW/GRiT",
        (
            "INPUT.CUSTOM_AUG",
            "INPUT.T*_SIZE",
            "MODEL.BEAM_SIZE",
            "MODEL.CENTERNET.*",
            f"{BOX_HEAD}.MULT_PROPOSAL_SCORE",
            "MODEL.ROI_HEADS.OBJECT_FEAT_POOLER_RES",
            "MODEL.ROI_HEADS.SOFT_NMS_ENABLED",
            "MODEL.T*_TASK",
            "MODEL.VIT_LAYERS",
            "USE_ACT_CHECKPOINT",
            f"{BACKBONE}=build_vit_fpn_backbone*",
            f"{PROPOSALS}=CenterNet",
        ),
        (
            ProjectModel(
                "GRiT",
                (f"{ARCHITECTURE}=GRiT", f"{HEADS}=GRiTROIHeads*", "MODEL.T*_TASK"),
            ),
        ),
    ),
    Project(
        "DE-ViT",
        "github.com/mlzxy/devit",
        ("DE.*", "MODEL.BACKBONE.TYPE"),
        (
            ProjectModel(
                "DE-ViT",
                (f"{ARCHITECTURE}=OpenSetDetector*", f"{BACKBONE}=build_dino_v2_vit"),
            ),
        ),
    ),
    Project(
        "UniDet",
        "github.com/xingyizhou/UniDet",
        (
            "MODEL.ROI_BOX_HEAD.HIERARCHY_*",
            "MODEL.ROI_BOX_HEAD.UNIFIED_MAP_BACK",
            "MULTI_DATASET.*",
        ),
        (
            ProjectModel(
                "UniDet",
                (
                    f"{ARCHITECTURE}=SplitClassifierRCNN",
                    f"{ARCHITECTURE}=UnifiedRCNN",
                    f"{HEADS}=MultiDatasetCascadeROIHeads",
                    f"{HEADS}=UnifiedCascadeROIHeads",
                ),
            ),
        ),
    ),
    Project(
        "RegionCLIP",
        "github.com/microsoft/RegionCLIP",
        ("MODEL.CLIP.*",),
        (
            ProjectModel(
                "RegionCLIP",
                (
                    f"{ARCHITECTURE}=CLIPFastRCNN",
                    f"{ARCHITECTURE}=PretrainFastRCNN",
                    f"{BACKBONE}=build_clip_resnet_*backbone",
                    f"{HEADS}=CLIP*ROIHeads",
                ),
            ),
        ),
    ),
)
