"""Which keys of a Detectron2 config inference reads, with Detectron2's defaults and what is served.

Keys, meanings and defaults are those of `detectron2.config.defaults`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Key:
    """A config key that inference reads: its default, which values are served, and in words."""

    default: Any
    check: Check
    allowed: str


def _one_of(default: Any, *others: Any) -> Key:
    choices = (default, *others)
    return Key(default, lambda value: value in choices, " or ".join(map(repr, choices)))


def _only(value: Any, default: Any = None) -> Key:
    """A key of which one value is served; `default` where Detectron2's own default is another."""
    return Key(
        value if default is None else default, lambda given: given == value, f"only {value!r}"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _integer(default: int, least: int) -> Key:
    def check(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    return Key(default, check, f"a whole number of at least {least}")


def _fraction(default: float) -> Key:
    return Key(default, lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1")


def _numbers(default: list[float], count: int | None = None, positive: bool = False) -> Key:
    def check(value: Any) -> bool:
        return (
            isinstance(value, (list, tuple))
            and len(value) > 0
            and all(_is_number(item) and (item > 0 or not positive) for item in value)
            and count in (None, len(value))
        )

    kind = "numbers above 0" if positive else "numbers"
    return Key(default, check, f"a list of {count or 'one or more'} {kind}")


def _number_lists(default: list[list[float]]) -> Key:
    inner = _numbers([], positive=True)

    def check(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and len(value) > 0 and all(map(inner.check, value))

    return Key(default, check, "a list of lists of numbers above 0")


def _names(default: list[str]) -> Key:
    def check(value: Any) -> bool:
        return (
            isinstance(value, (list, tuple))
            and len(value) > 0
            and all(isinstance(item, str) for item in value)
        )

    return Key(default, check, "a list of feature names")


def _flag(default: bool) -> Key:
    return Key(default, lambda value: isinstance(value, bool), "True or False")


KEYS: dict[str, Key] = {
    "VERSION": _only(2),
    "INPUT.FORMAT": _one_of("BGR", "RGB"),
    "INPUT.MIN_SIZE_TEST": _integer(800, 0),
    "INPUT.MAX_SIZE_TEST": _integer(1333, 1),
    "TEST.DETECTIONS_PER_IMAGE": _integer(100, 1),
    "MODEL.META_ARCHITECTURE": _only("GeneralizedRCNN"),
    "MODEL.LOAD_PROPOSALS": _only(False),
    "MODEL.MASK_ON": _flag(False),
    "MODEL.KEYPOINT_ON": _only(False),
    "MODEL.PIXEL_MEAN": _numbers([103.53, 116.28, 123.675], count=3),
    "MODEL.PIXEL_STD": _numbers([1.0, 1.0, 1.0], count=3, positive=True),
    "MODEL.BACKBONE.NAME": _only("build_resnet_fpn_backbone", "build_resnet_backbone"),
    "MODEL.RESNETS.DEPTH": _one_of(50, 18, 34, 101, 152),
    "MODEL.RESNETS.OUT_FEATURES": _names(["res4"]),
    "MODEL.RESNETS.NUM_GROUPS": _integer(1, 1),
    "MODEL.RESNETS.NORM": _only("FrozenBN"),
    "MODEL.RESNETS.WIDTH_PER_GROUP": _integer(64, 1),
    "MODEL.RESNETS.STRIDE_IN_1X1": _flag(True),
    "MODEL.RESNETS.RES5_DILATION": _only(1),
    "MODEL.RESNETS.RES2_OUT_CHANNELS": _integer(256, 1),
    "MODEL.RESNETS.STEM_OUT_CHANNELS": _integer(64, 1),
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": Key(
        [False] * 4, lambda value: not any(value), "only [False, False, False, False]"
    ),
    "MODEL.FPN.IN_FEATURES": _names([]),
    "MODEL.FPN.OUT_CHANNELS": _integer(256, 1),
    "MODEL.FPN.NORM": _only(""),
    "MODEL.FPN.FUSE_TYPE": _one_of("sum", "avg"),
    "MODEL.PROPOSAL_GENERATOR.NAME": _only("RPN"),
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": Key(
        0, lambda value: _is_number(value) and value >= 0, "a number of at least 0"
    ),
    "MODEL.ANCHOR_GENERATOR.NAME": _only("DefaultAnchorGenerator"),
    "MODEL.ANCHOR_GENERATOR.SIZES": _number_lists([[32, 64, 128, 256, 512]]),
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": _number_lists([[0.5, 1.0, 2.0]]),
    "MODEL.ANCHOR_GENERATOR.OFFSET": _fraction(0.0),
    "MODEL.RPN.HEAD_NAME": _only("StandardRPNHead"),
    "MODEL.RPN.IN_FEATURES": _names(["res4"]),
    "MODEL.RPN.BBOX_REG_WEIGHTS": _numbers([1.0, 1.0, 1.0, 1.0], count=4, positive=True),
    "MODEL.RPN.PRE_NMS_TOPK_TEST": _integer(6000, 1),
    "MODEL.RPN.POST_NMS_TOPK_TEST": _integer(1000, 1),
    "MODEL.RPN.NMS_THRESH": _fraction(0.7),
    "MODEL.RPN.CONV_DIMS": _numbers([-1]),
    "MODEL.ROI_HEADS.NAME": _only("StandardROIHeads", "Res5ROIHeads"),
    "MODEL.ROI_HEADS.NUM_CLASSES": _integer(80, 1),
    "MODEL.ROI_HEADS.IN_FEATURES": _names(["res4"]),
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": _fraction(0.05),
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": _fraction(0.5),
    "MODEL.ROI_BOX_HEAD.NAME": _only("FastRCNNConvFCHead", ""),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": _numbers([10.0, 10.0, 5.0, 5.0], 4, positive=True),
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": _integer(14, 1),
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": _integer(0, 0),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": _one_of("ROIAlignV2", "ROIAlign"),
    "MODEL.ROI_BOX_HEAD.NUM_FC": _integer(0, 0),
    "MODEL.ROI_BOX_HEAD.FC_DIM": _integer(1024, 1),
    "MODEL.ROI_BOX_HEAD.NUM_CONV": _integer(0, 0),
    "MODEL.ROI_BOX_HEAD.CONV_DIM": _integer(256, 1),
    "MODEL.ROI_BOX_HEAD.NORM": _only(""),
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": _flag(False),
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": _flag(False),
    "MODEL.ROI_MASK_HEAD.NAME": _only("MaskRCNNConvUpsampleHead"),
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": _integer(14, 1),
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": _integer(0, 0),
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": _one_of("ROIAlignV2", "ROIAlign"),
    "MODEL.ROI_MASK_HEAD.NUM_CONV": _integer(0, 0),
    "MODEL.ROI_MASK_HEAD.CONV_DIM": _integer(256, 1),
    "MODEL.ROI_MASK_HEAD.NORM": _only(""),
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": _flag(False),
}

# Known to Detectron2 but without a say in what a served Faster or Mask R-CNN answers: training,
# evaluation and the other architectures. A name without a last part stands for all below it.
IGNORED = (
    "CUDNN_BENCHMARK",
    "DATALOADER",
    "DATASETS",
    "FLOAT32_PRECISION",
    "GLOBAL",
    "INPUT.CROP",
    "INPUT.MASK_FORMAT",
    "INPUT.MAX_SIZE_TRAIN",
    "INPUT.MIN_SIZE_TRAIN",
    "INPUT.MIN_SIZE_TRAIN_SAMPLING",
    "INPUT.RANDOM_FLIP",
    "MODEL.ANCHOR_GENERATOR.ANGLES",
    "MODEL.BACKBONE.FREEZE_AT",
    "MODEL.DEVICE",
    "MODEL.PANOPTIC_FPN",
    "MODEL.RESNETS.DEFORM_MODULATED",
    "MODEL.RESNETS.DEFORM_NUM_GROUPS",
    "MODEL.RETINANET",
    "MODEL.ROI_BOX_CASCADE_HEAD",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT",
    "MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER",
    "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES",
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA",
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES",
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
    "MODEL.ROI_HEADS.IOU_LABELS",
    "MODEL.ROI_HEADS.IOU_THRESHOLDS",
    "MODEL.ROI_HEADS.POSITIVE_FRACTION",
    "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT",
    "MODEL.ROI_KEYPOINT_HEAD",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE",
    "MODEL.RPN.BBOX_REG_LOSS_TYPE",
    "MODEL.RPN.BBOX_REG_LOSS_WEIGHT",
    "MODEL.RPN.BOUNDARY_THRESH",
    "MODEL.RPN.IOU_LABELS",
    "MODEL.RPN.IOU_THRESHOLDS",
    "MODEL.RPN.LOSS_WEIGHT",
    "MODEL.RPN.POSITIVE_FRACTION",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN",
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN",
    "MODEL.RPN.SMOOTH_L1_BETA",
    "MODEL.SEM_SEG_HEAD",
    "MODEL.WEIGHTS",
    "OUTPUT_DIR",
    "SEED",
    "SOLVER",
    "TEST.AUG",
    "TEST.EVAL_PERIOD",
    "TEST.EXPECTED_RESULTS",
    "TEST.KEYPOINT_OKS_SIGMAS",
    "TEST.PRECISE_BN",
    "VIS_PERIOD",
)
