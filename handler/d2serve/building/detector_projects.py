"""Projects on top of Detectron2 with convolutional detectors of their own."""

from d2serve.building.projects import Project, ProjectModel

ARCHITECTURE = "MODEL.META_ARCHITECTURE"
BACKBONE = "MODEL.BACKBONE.NAME"
PROPOSALS = "MODEL.PROPOSAL_GENERATOR.NAME"
HEADS = "MODEL.ROI_HEADS.NAME"
# Among projects with the same keys the first is named.
DETECTOR_PROJECTS = (
    Project(
        "VoVNet",
        "github.com/youngwanLEE/vovnet-detectron2",
        ("MODEL.VOVNET.*",),
        (
            ProjectModel("MobileNetV2", (f"{BACKBONE}=build_mobilenetv2_*",)),
            ProjectModel("VoVNet", (f"{BACKBONE}=build_vovnet_*",), supported=True),
        ),
    ),
    Project(
        "AdelaiDet",
        "github.com/aim-uofa/AdelaiDet",
        (
            "INPUT.CROP_INSTANCE",
            "INPUT.HFLIP_TRAIN",
            "INPUT.IS_ROTATE",
            "MODEL.BACKBONE.ANTI_ALIAS",
            "MODEL.BASIS_MODULE.*",
            "MODEL.BATEXT.*",
            "MODEL.BLENDMASK.*",
            "MODEL.BOXINST.*",
            "MODEL.BiFPN.*",
            "MODEL.CONDINST.*",
            "MODEL.DLA.*",
            "MODEL.FCOS.*",
            "MODEL.FCPOSE*",
            "MODEL.MEInst.*",
            "MODEL.MOBILENET",
            "MODEL.RESNETS.DEFORM_INTERVAL",
            "MODEL.SOLOV2.*",
            "MODEL.TOP_MODULE.*",
            "MODEL.VOVNET.*",
            f"{BACKBONE}=build_fcos_*_*fpn_backbone",
        ),
        (
            ProjectModel("SOLOv2", (f"{ARCHITECTURE}=SOLOv2",)),
            ProjectModel("a variant of SOLOv2", (f"{ARCHITECTURE}=SOLOv2?*",)),
            ProjectModel("BlendMask", (f"{ARCHITECTURE}=BlendMask",)),
            ProjectModel("MEInst", (f"{ARCHITECTURE}=MEInst", f"{PROPOSALS}=MEInst")),
            ProjectModel("FCPose", (f"{PROPOSALS}=FCPose",)),
            ProjectModel("ABCNet", (f"{PROPOSALS}=BAText", f"{HEADS}=TextHead")),
            ProjectModel("OneStageRCNN", (f"{ARCHITECTURE}=OneStageRCNN",)),
            ProjectModel("BiFPN", (f"{BACKBONE}=build_fcos_*_bifpn_backbone",)),
            ProjectModel("DLA", (f"{BACKBONE}=build_fcos_dla_*",)),
            ProjectModel("MobileNetV2", ("MODEL.MOBILENET=True",)),
            ProjectModel("BoxInst", ("MODEL.BOXINST.ENABLED=True",), supported=True),
            ProjectModel("CondInst", (f"{ARCHITECTURE}=CondInst",), supported=True),
            ProjectModel(
                "FCOS", (f"{ARCHITECTURE}=OneStageDetector", f"{PROPOSALS}=FCOS"), supported=True
            ),
        ),
    ),
    Project(
        "CenterMask2",
        "github.com/youngwanLEE/centermask2",
        (
            "MODEL.FCOS.*",
            "MODEL.MASKIOU_*",
            "MODEL.ROI_MASKIOU_HEAD.*",
            "MODEL.ROI_MASK_HEAD.ASSIGN_CRITERION",
            "MODEL.VOVNET.*",
            f"{BACKBONE}=build_fcos_*_fpn_backbone",
            f"{PROPOSALS}=FCOS",
            "MODEL.ROI_MASK_HEAD.NAME=SpatialAttentionMaskHead",
        ),
        (
            ProjectModel("MobileNetV2", (f"{BACKBONE}=build_fcos_mobilenetv2_*",)),
            ProjectModel("CenterMask2", (f"{HEADS}=CenterROIHeads",), supported=True),
        ),
    ),
    Project(
        "CenterNet2",
        "github.com/xingyizhou/CenterNet2",
        (
            "INPUT.CUSTOM_AUG",
            "INPUT.TEST_INPUT_TYPE",
            "INPUT.T*_SIZE",
            "MODEL.BIFPN.*",
            "MODEL.CENTERNET.*",
            "MODEL.DLA.*",
            "MODEL.ROI_BOX_HEAD.MULT_PROPOSAL_SCORE",
        ),
        (
            ProjectModel(
                "CenterNet2",
                (
                    f"{ARCHITECTURE}=CenterNetDetector",
                    f"{BACKBONE}=build_p[36][57]_*_backbone",
                    f"{PROPOSALS}=CenterNet",
                    f"{HEADS}=CustomROIHeads",
                ),
            ),
        ),
    ),
    Project(
        "SOLOv2-detectron2",
        "github.com/gakkiri/SOLOv2-detectron2",
        (f"{ARCHITECTURE}=OneStageDetector",),
        (ProjectModel("SOLOv2", (f"{PROPOSALS}=SOLOv2",)),),
    ),
    Project(
        "CRMask",
        "github.com/Venquieu/CRMask",
        ("MODEL.BASIS_MODULE.*", "MODEL.FCOS.*", "MODEL.SIM.*", f"{PROPOSALS}=FCOS"),
        (ProjectModel("CRMask", (f"{ARCHITECTURE}=CRMask", "MODEL.CRMASK.*")),),
    ),
    Project(
        "BCNet",
        "github.com/lkeab/BCNet",
        ("MODEL.FCOS.*",),
        (ProjectModel("FCOS", (f"{ARCHITECTURE}=FCOS",)),),
    ),
    Project(
        "Mask Transfiner",
        "github.com/SysCV/transfiner",
        ("MODEL.SWINT.*",),
        (ProjectModel("Mask Transfiner", (f"{BACKBONE}=build_*swinb_*backbone",)),),
    ),
    Project(
        "yolov7_d2",
        "github.com/lucasjinreal/yolov7_d2",
        ("MODEL.PADDED_VALUE", "MODEL.YOLO.*"),
        (
            ProjectModel("YOLOX", (f"{ARCHITECTURE}=YOLOX",)),
            ProjectModel("YOLOMask", (f"{ARCHITECTURE}=YOLOMask",)),
            ProjectModel("YOLOF", (f"{ARCHITECTURE}=YOLOF",)),
            ProjectModel("YOLO", (f"{ARCHITECTURE}=YOLOV[4-7]*",)),
            ProjectModel(
                "DETR",
                (
                    f"{ARCHITECTURE}=AnchorDetr",
                    f"{ARCHITECTURE}=DetrD2go",
                    f"{ARCHITECTURE}=SMCADetr",
                ),
            ),
        ),
    ),
    Project(
        "SparseInst",
        "github.com/hustvl/SparseInst",
        ("MODEL.CSPNET.*", "MODEL.PVT.*", "MODEL.SPARSE_INST.*"),
        (ProjectModel("SparseInst", (f"{ARCHITECTURE}=SparseInst",)),),
    ),
    Project(
        "YOLOv3-Detectron2",
        "github.com/cvamateur/YOLOv3-Detectron2",
        ("MODEL.YOLOV3.*", "MODEL.DARKNET.*"),
        (
            ProjectModel(
                "YOLOv3",
                (f"{ARCHITECTURE}=YOLO[Vv]3", "MODEL.ANCHOR_GENERATOR.NAME=YOLOAnchorGenerator"),
            ),
        ),
    ),
    Project(
        "Detectron2-CenterNet",
        "github.com/ShawnNew/Detectron2-CenterNet",
        ("MODEL.CENTERNET.FOCAL_LOSS_ALPHA", "MODEL.CENTERNET.HEAD_CONV"),
        (ProjectModel("CenterNet", (f"{ARCHITECTURE}=CenterNet",)),),
    ),
    Project(
        "DroneDetectron2",
        "github.com/akhilpm/DroneDetectron2",
        ("CROPTRAIN.*",),
        (
            ProjectModel(
                "DroneDetectron2", (f"{ARCHITECTURE}=CropRCNN", f"{ARCHITECTURE}=CROP_FCOS")
            ),
        ),
    ),
    Project(
        "detectron2_timm",
        "github.com/iKrishneel/detectron2_timm",
        ("INPUT.FIXED_INPUT_SIZE",),
        (ProjectModel("a backbone of timm", ("MODEL.BACKBONE.CONFIG.*",)),),
    ),
    Project(
        "detectron2-sgg",
        "github.com/victchang/detectron2-sgg",
        ("MODEL.RELATION_ON", "MODEL.ROI_RELATION_HEAD.*"),
        (ProjectModel("scene graph generation", (f"{ARCHITECTURE}=GeneralizedRCNNWithRelation",)),),
    ),
    Project(
        "ResNeSt",
        "github.com/zhanghang1989/detectron2-ResNeSt",
        (
            "MODEL.RESNETS.AVD",
            "MODEL.RESNETS.AVG_DOWN",
            "MODEL.RESNETS.BOTTLENECK_WIDTH",
            "MODEL.RESNETS.DEEP_STEM",
        ),
        (ProjectModel("ResNeSt", ("MODEL.RESNETS.RADIX=[2-9]*",)),),
    ),
)
