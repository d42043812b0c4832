"""Keys of Detectron2's project DensePose (`densepose.config.add_densepose_config`)."""

from dataclasses import replace

from d2serve.building.config_keys import ANY_NORM, MAX_LAYERS
from d2serve.building.extension import Extension
from d2serve.building.key_types import flag, integer, number, one_of

HEAD = "MODEL.ROI_DENSEPOSE_HEAD"
DENSEPOSE_HEADS = "DensePoseROIHeads"
DEEP_LAB = "DensePoseDeepLabHead"
PREDICTOR = "DensePoseChartPredictor"
CONFIDENCE_PREDICTOR = "DensePoseChartWithConfidencePredictor"
# Part labels are bytes.
MAX_PARTS = 255

DENSEPOSE = Extension(
    markers=(
        "BOOTSTRAP_*",
        "DENSEPOSE_EVALUATION.*",
        "MODEL.DENSEPOSE_ON",
        f"{HEAD}.*",
        f"MODEL.ROI_HEADS.NAME={DENSEPOSE_HEADS}",
    ),
    values={"MODEL.ROI_HEADS.NAME": (DENSEPOSE_HEADS,)},
    keys={
        "MODEL.DENSEPOSE_ON": flag(True),
        # The project has no default head.
        f"{HEAD}.NAME": replace(one_of("DensePoseV1ConvXHead", DEEP_LAB), default=""),
        f"{HEAD}.PREDICTOR_NAME": one_of(CONFIDENCE_PREDICTOR, PREDICTOR),
        f"{HEAD}.POOLER_TYPE": one_of("ROIAlignV2", "ROIAlign", "ROIPool"),
        f"{HEAD}.POOLER_RESOLUTION": integer(28, 1),
        f"{HEAD}.POOLER_SAMPLING_RATIO": integer(2, -1),
        f"{HEAD}.NUM_STACKED_CONVS": integer(8, 0, MAX_LAYERS),
        f"{HEAD}.CONV_HEAD_DIM": integer(512, 1),
        f"{HEAD}.CONV_HEAD_KERNEL": integer(3, 1),
        f"{HEAD}.DECONV_KERNEL": integer(4, 1),
        f"{HEAD}.UP_SCALE": integer(2, 1),
        f"{HEAD}.NUM_PATCHES": integer(24, 1, MAX_PARTS),
        f"{HEAD}.NUM_COARSE_SEGM_CHANNELS": integer(2, 2, MAX_PARTS),
        f"{HEAD}.SEGM_CONFIDENCE.ENABLED": flag(False),
        f"{HEAD}.SEGM_CONFIDENCE.EPSILON": number(0.01),
        f"{HEAD}.DECODER_ON": flag(True),
        f"{HEAD}.DECODER_NUM_CLASSES": integer(256, 1),
        f"{HEAD}.DECODER_CONV_DIMS": integer(256, 1),
        f"{HEAD}.DECODER_NORM": one_of("", *ANY_NORM),
        f"{HEAD}.DECODER_COMMON_STRIDE": integer(4, 1),
        f"{HEAD}.DEEPLAB.NORM": one_of("GN", ""),
        f"{HEAD}.DEEPLAB.NONLOCAL_ON": one_of(0, False),
    },
    ignored=(
        "BOOTSTRAP_DATASETS",
        "BOOTSTRAP_MODEL",
        "DENSEPOSE_EVALUATION",
        "INPUT.ROTATION_ANGLES",
        "MODEL.HRNET",
        f"{HEAD}.COARSE_SEGM_TRAINED_BY_MASKS",
        f"{HEAD}.CSE",
        f"{HEAD}.FG_IOU_THRESHOLD",
        f"{HEAD}.HEATMAP_SIZE",
        f"{HEAD}.INDEX_WEIGHTS",
        f"{HEAD}.LOSS_NAME",
        f"{HEAD}.PART_WEIGHTS",
        f"{HEAD}.POINT_REGRESSION_WEIGHTS",
        # Confidences of U and V do not change them.
        f"{HEAD}.UV_CONFIDENCE.ENABLED",
        f"{HEAD}.UV_CONFIDENCE.EPSILON",
        f"{HEAD}.UV_CONFIDENCE.TYPE",
    ),
)
