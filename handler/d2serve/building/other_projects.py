"""Projects on top of Detectron2 whose networks the detectron2 package does not contain."""

from d2serve.building.detector_projects import DETECTOR_PROJECTS
from d2serve.building.older_frameworks import OLDER_FRAMEWORKS
from d2serve.building.projects import DETECTRON2_PROJECTS, Project, ProjectModel
from d2serve.building.training_projects import TRAINING_PROJECTS
from d2serve.building.transformer_projects import TRANSFORMER_PROJECTS
from d2serve.building.vocabulary_projects import VOCABULARY_PROJECTS

ARCHITECTURE = "MODEL.META_ARCHITECTURE"
BACKBONE = "MODEL.BACKBONE.NAME"
PROPOSALS = "MODEL.PROPOSAL_GENERATOR.NAME"
HEADS = "MODEL.ROI_HEADS.NAME"
DENSEPOSE = "MODEL.ROI_DENSEPOSE_HEAD"
# Among projects with the same keys the first is named.
OTHER_PROJECTS = (
    Project(
        "DensePose",
        f"{DETECTRON2_PROJECTS}/DensePose",
        (
            "BOOTSTRAP_*",
            "DENSEPOSE_EVALUATION.*",
            "INPUT.ROTATION_ANGLES",
            "MODEL.DENSEPOSE_ON",
            "MODEL.HRNET.*",
            "MODEL.ROI_DENSEPOSE_HEAD.*",
        ),
        (
            ProjectModel(
                "continuous surface embeddings (CSE)",
                (f"{DENSEPOSE}.PREDICTOR_NAME=DensePoseEmbedding*",),
            ),
            ProjectModel("HRNet", (f"{BACKBONE}=build_hrfpn_backbone",)),
            ProjectModel("DensePose", (f"{HEADS}=DensePoseROIHeads",), supported=True),
        ),
    ),
    Project(
        "DensePoseFnL",
        "github.com/zetyquickly/DensePoseFnL",
        ("MODEL.TIMMNETS.*", "QUANTIZATION.*"),
        (ProjectModel("DensePoseFnL", (f"{HEADS}=MyDensePoseROIHeads",)),),
    ),
    Project(
        "TensorMask",
        f"{DETECTRON2_PROJECTS}/TensorMask",
        ("MODEL.TENSOR_MASK.*",),
        (ProjectModel("TensorMask", (f"{ARCHITECTURE}=TensorMask",)),),
    ),
    Project(
        "TridentNet",
        f"{DETECTRON2_PROJECTS}/TridentNet",
        ("MODEL.TRIDENT.*",),
        (
            ProjectModel(
                "TridentNet",
                (
                    f"{BACKBONE}=build_trident_resnet_backbone",
                    f"{PROPOSALS}=TridentRPN",
                    f"{HEADS}=Trident*",
                ),
            ),
        ),
    ),
    Project(
        "PointSup",
        f"{DETECTRON2_PROJECTS}/PointSup",
        ("INPUT.POINT_SUP", "INPUT.SAMPLE_POINTS", "MODEL.ROI_MASK_HEAD.NAME=*PointSupHead"),
    ),
    *TRANSFORMER_PROJECTS,
    Project(
        "grid-feats-vqa",
        "github.com/facebookresearch/grid-feats-vqa",
        (
            "MODEL.ATTRIBUTE_ON",
            "MODEL.R*.BBOX_LOSS_WEIGHT",
            "MODEL.ROI_ATTRIBUTE_HEAD.*",
        ),
        (ProjectModel("grid features", (f"{HEADS}=Attribute*ROIHeads",)),),
    ),
    Project(
        "bottom-up-attention.pytorch",
        "github.com/MILVLG/bottom-up-attention.pytorch",
        ("MODEL.ATTRIBUTE_ON", "MODEL.BUA.*", "MODEL.ROI_ATTRIBUTE_HEAD.*"),
        (
            ProjectModel(
                "bottom-up attention",
                (
                    f"{ARCHITECTURE}=GeneralizedBUARCNN",
                    f"{BACKBONE}=build_bua_*",
                    f"{PROPOSALS}=BUARPN",
                    f"{HEADS}=BUACaffeRes5ROIHeads",
                    f"{HEADS}=Attribute*ROIHeads",
                ),
            ),
        ),
    ),
    Project(
        "py-bottom-up-attention",
        "github.com/airsplay/py-bottom-up-attention",
        ("MODEL.ROI_BOX_HEAD.ATTR", "MODEL.ROI_BOX_HEAD.NUM_ATTRS"),
        (
            ProjectModel(
                "bottom-up attention",
                (
                    "MODEL.CAFFE_MAXPOOL",
                    "MODEL.PROPOSAL_GENERATOR.HID_CHANNELS",
                    "MODEL.ROI_BOX_HEAD.RES5HALVE",
                ),
            ),
        ),
    ),
    Project(
        "Detectron2_AL",
        "github.com/lolipopshock/Detectron2_AL",
        ("AL.*",),
        (
            ProjectModel(
                "Detectron2_AL",
                (f"{ARCHITECTURE}=ActiveLearningRCNN", f"{HEADS}=ROIHeadsAL"),
                supported=True,
            ),
        ),
    ),
    *DETECTOR_PROJECTS,
    *VOCABULARY_PROJECTS,
    Project(
        "D2Go",
        "github.com/facebookresearch/d2go",
        ("D2GO_DATA.*", "MODEL.FBNET.*", "MODEL.FBNET_V2.*", "MODEL_EMA.*", "QUANTIZATION.*"),
        (ProjectModel("FBNet", (f"{BACKBONE}=FBNet*",)),),
    ),
    Project(
        "Omni3D",
        "github.com/facebookresearch/omni3d",
        (
            "MODEL.DLA.*",
            "MODEL.RESNETS.TORCHVISION",
            "MODEL.ROI_CUBE_HEAD.*",
            "MODEL.RPN.OBJECTNESS_UNCERTAINTY",
            "MODEL.STABILIZE",
            "MODEL.USE_BN",
            "TEST.TRUNCATION_THRES",
            "TEST.VISIBILITY_THRES",
        ),
        (
            ProjectModel(
                "Cube R-CNN",
                (f"{ARCHITECTURE}=RCNN3D", f"{PROPOSALS}=RPNWithIgnore", f"{HEADS}=ROIHeads3D"),
            ),
        ),
    ),
    Project(
        "DD3D",
        "github.com/TRI-ML/dd3d",
        ("DD3D.*", "FE.*", "MODEL.BOX?D_ON", "MODEL.CKPT", "MODEL.DEPTH_ON"),
        (ProjectModel("DD3D", (f"{ARCHITECTURE}=*DD3D",)),),
    ),
    Project(
        "Mesh R-CNN",
        "github.com/facebookresearch/meshrcnn",
        (
            "MODEL.CHECKPOINT",
            "MODEL.MESH_*",
            "MODEL.ROI_MESH_HEAD.*",
            "MODEL.ROI_VOXEL_HEAD.*",
            "MODEL.ROI_Z_HEAD.*",
            "MODEL.VOXEL_*",
            "MODEL.ZPRED_ON",
        ),
        (ProjectModel("Mesh R-CNN", (f"{HEADS}=MeshRCNNROIHeads",)),),
    ),
    Project(
        "FewX",
        "github.com/fanq15/FewX",
        ("INPUT.FS.*",),
        (ProjectModel("FSOD", (f"{ARCHITECTURE}=FsodRCNN", f"{PROPOSALS}=FsodRPN")),),
    ),
    *TRAINING_PROJECTS,
    *OLDER_FRAMEWORKS,
)
