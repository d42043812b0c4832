"""Keys of FCOS, CondInst and BoxInst (AdelaiDet) and of CenterMask2."""

from d2serve.building.config_keys import ANY_NORM, MAX_LAYERS
from d2serve.building.extension import Extension
from d2serve.building.key_types import flag, integer, integers, names, number, one_of, only
from d2serve.building.vovnet_keys import FCOS_VOVNET

FCOS_RESNET = "build_fcos_resnet_fpn_backbone"
CENTER_HEADS = "CenterROIHeads"
ATTENTION_MASK_HEAD = "SpatialAttentionMaskHead"
FCOS = Extension(
    markers=(
        "MODEL.FCOS.*",
        "MODEL.BACKBONE.NAME=build_fcos_*_fpn_backbone",
        "MODEL.META_ARCHITECTURE=OneStageDetector",
        "MODEL.META_ARCHITECTURE=CondInst",
        "MODEL.PROPOSAL_GENERATOR.NAME=FCOS",
    ),
    keys={
        "MODEL.FCPOSE_ON": only(False),
        "MODEL.MOBILENET": only(False),
        "MODEL.BACKBONE.ANTI_ALIAS": only(False),
        "MODEL.RESNETS.DEFORM_INTERVAL": only(1),
        "MODEL.FCOS.NUM_CLASSES": integer(80, 1),
        "MODEL.FCOS.IN_FEATURES": names(["p3", "p4", "p5", "p6", "p7"]),
        "MODEL.FCOS.FPN_STRIDES": integers([8, 16, 32, 64, 128]),
        "MODEL.FCOS.INFERENCE_TH_TEST": number(0.05),
        "MODEL.FCOS.NMS_TH": number(0.6),
        "MODEL.FCOS.PRE_NMS_TOPK_TEST": integer(1000, 0),
        "MODEL.FCOS.POST_NMS_TOPK_TEST": integer(100),
        "MODEL.FCOS.TOP_LEVELS": one_of(2, 1, 0),
        "MODEL.FCOS.NORM": one_of("GN", "NaiveGN", "BN", "SyncBN", "none", ""),
        "MODEL.FCOS.USE_SCALE": flag(True),
        "MODEL.FCOS.BOX_QUALITY": one_of("ctrness", "iou"),
        "MODEL.FCOS.THRESH_WITH_CTR": flag(False),
        "MODEL.FCOS.USE_DEFORMABLE": flag(False),
        "MODEL.FCOS.NUM_CLS_CONVS": integer(4, 0, MAX_LAYERS),
        "MODEL.FCOS.NUM_BOX_CONVS": integer(4, 0, MAX_LAYERS),
        "MODEL.FCOS.NUM_SHARE_CONVS": integer(0, 0, MAX_LAYERS),
        "MODEL.FCOS.SIZES_OF_INTEREST": integers([64, 128, 256, 512]),
    },
    values={
        "MODEL.BACKBONE.NAME": (FCOS_RESNET, FCOS_VOVNET),
        "MODEL.META_ARCHITECTURE": ("OneStageDetector", "CondInst"),
        "MODEL.PROPOSAL_GENERATOR.NAME": ("FCOS",),
    },
    ignored=(
        "INPUT.CROP.CROP_INSTANCE",
        "INPUT.HFLIP_TRAIN",
        "INPUT.IS_ROTATE",
        "MODEL.BASIS_MODULE",
        "MODEL.BATEXT",
        "MODEL.BLENDMASK",
        "MODEL.BiFPN",
        "MODEL.DLA",
        "MODEL.FCOS.CENTER_SAMPLE",
        "MODEL.FCOS.INFERENCE_TH_TRAIN",
        "MODEL.FCOS.LOC_LOSS_TYPE",
        "MODEL.FCOS.LOSS_ALPHA",
        "MODEL.FCOS.LOSS_GAMMA",
        "MODEL.FCOS.LOSS_NORMALIZER_CLS",
        "MODEL.FCOS.LOSS_WEIGHT_CLS",
        "MODEL.FCOS.POST_NMS_TOPK_TRAIN",
        "MODEL.FCOS.POS_RADIUS",
        "MODEL.FCOS.PRE_NMS_TOPK_TRAIN",
        "MODEL.FCOS.PRIOR_PROB",
        # The distances have a ReLU in any case.
        "MODEL.FCOS.USE_RELU",
        "MODEL.FCOS.YIELD_BOX_FEATURES",
        "MODEL.FCOS.YIELD_PROPOSAL",
        "MODEL.FCPOSE",
        "MODEL.MEInst",
        "MODEL.SOLOV2",
        "MODEL.TOP_MODULE",
    ),
)
CONDINST = Extension(
    markers=("MODEL.CONDINST.*", "MODEL.BOXINST.*", "MODEL.META_ARCHITECTURE=CondInst"),
    keys={
        "MODEL.CONDINST.MASK_OUT_STRIDE": integer(4, 1),
        "MODEL.CONDINST.MASK_HEAD.CHANNELS": integer(8, 1),
        "MODEL.CONDINST.MASK_HEAD.NUM_LAYERS": integer(3, 2, MAX_LAYERS),
        "MODEL.CONDINST.MASK_HEAD.DISABLE_REL_COORDS": flag(False),
        "MODEL.CONDINST.MASK_BRANCH.OUT_CHANNELS": integer(8, 1),
        "MODEL.CONDINST.MASK_BRANCH.IN_FEATURES": names(["p3", "p4", "p5"]),
        "MODEL.CONDINST.MASK_BRANCH.CHANNELS": integer(128, 1),
        "MODEL.CONDINST.MASK_BRANCH.NORM": one_of("BN", "", *ANY_NORM),
        "MODEL.CONDINST.MASK_BRANCH.NUM_CONVS": integer(4, 0, MAX_LAYERS),
    },
    ignored=(
        "MODEL.BOXINST",
        "MODEL.CONDINST.BOTTOM_PIXELS_REMOVED",
        # AdelaiDet reads it nowhere.
        "MODEL.CONDINST.MASK_HEAD.USE_FP16",
        "MODEL.CONDINST.MASK_BRANCH.SEMANTIC_LOSS_ON",
        "MODEL.CONDINST.MAX_PROPOSALS",
        "MODEL.CONDINST.TOPK_PROPOSALS_PER_IM",
    ),
)
CENTER_MASK = Extension(
    markers=(
        "MODEL.MASKIOU_*",
        "MODEL.ROI_MASKIOU_HEAD.*",
        "MODEL.ROI_MASK_HEAD.ASSIGN_CRITERION",
        f"MODEL.ROI_HEADS.NAME={CENTER_HEADS}",
    ),
    keys={
        "MODEL.MASKIOU_ON": flag(False),
        "MODEL.ROI_MASK_HEAD.ASSIGN_CRITERION": one_of("area", "ratio"),
        "MODEL.ROI_MASKIOU_HEAD.NAME": only("MaskIoUHead"),
        "MODEL.ROI_MASKIOU_HEAD.CONV_DIM": integer(256, 1),
        "MODEL.ROI_MASKIOU_HEAD.NUM_CONV": integer(4, 1, MAX_LAYERS),
    },
    values={
        "MODEL.ROI_HEADS.NAME": (CENTER_HEADS,),
        "MODEL.ROI_MASK_HEAD.NAME": (ATTENTION_MASK_HEAD,),
    },
    ignored=(
        "MODEL.MASKIOU_LOSS_WEIGHT",
        # Keypoints on these heads are not supported.
        "MODEL.ROI_KEYPOINT_HEAD.ASSIGN_CRITERION",
        "MODEL.ROI_KEYPOINT_HEAD.IN_FEATURES",
    ),
)
