"""Keys and classes of projects on top of Detectron2 that its package contains."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class ProjectModel:
    """A network of a project.

    Attributes:
        name: its name.
        patterns: of its own keys, and `KEY=VALUE` with the names of its classes; every config of
            the network matches one.
        supported: whether d2serve has the network.
    """

    name: str
    patterns: tuple[str, ...]
    supported: bool = False


@dataclass(frozen=True)
class Project:
    """A project whose configs extend Detectron2's.

    Attributes:
        name: its name.
        source: where it is published, as a URL without scheme.
        patterns: of its keys, and `KEY=VALUE` of its own values, besides those of its networks; `*`
            matches dots too.
        models: its networks; the first that matches a config names it.
    """

    name: str
    source: str
    patterns: tuple[str, ...]
    models: tuple[ProjectModel, ...] = ()

    def has(self, name: str, value: Any) -> bool:
        """Return whether the project defines a key, or accepts a value of Detectron2's key."""
        return any(matches(pattern, name, value) for pattern in self.all_patterns)

    @property
    def all_patterns(self) -> tuple[str, ...]:
        """Patterns of the project and of its networks."""
        return (*self.patterns, *(each for model in self.models for each in model.patterns))

    @property
    def is_supported(self) -> bool:
        """Return whether d2serve has one of its networks."""
        return any(model.supported for model in self.models)

    def find_model(self, given: Mapping[str, Any]) -> ProjectModel | None:
        """Return the network of a config, whose values are given by dotted name."""
        return next((model for model in self.models if has_any(model.patterns, given)), None)


def has_any(patterns: Iterable[str], given: Mapping[str, Any]) -> bool:
    """Return whether a config has a key or a value of one of the patterns."""
    return any(
        matches(pattern, name, value) for pattern in patterns for name, value in given.items()
    )


def matches(pattern: str, name: str, value: Any) -> bool:
    """Return whether a key or, if the pattern is `KEY=VALUE`, its value matches a pattern."""
    return fnmatchcase(f"{name}={value}" if "=" in pattern else name, pattern)


DETECTRON2_PROJECTS = "github.com/facebookresearch/detectron2/tree/main/projects"
# Detectron2's own values that our network does not support.
DETECTRON2 = Project(
    "Detectron2",
    "github.com/facebookresearch/detectron2",
    (
        "MODEL.ANCHOR_GENERATOR.NAME=RotatedAnchorGenerator",
        "MODEL.PROPOSAL_GENERATOR.NAME=RRPN",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS=?*, *, *, *, *?",
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE=ROIAlignRotated",
        "MODEL.ROI_HEADS.NAME=RROIHeads",
        "MODEL.RPN.BBOX_REG_WEIGHTS=?*, *, *, *, *?",
    ),
)
SEMANTIC = "MODEL.SEM_SEG_HEAD"
INSTANCES = "MODEL.INS_EMBED_HEAD"
MASK_HEAD = "MODEL.ROI_MASK_HEAD"
# Their patterns cover no other keys, because the package accepts only these.
POINT_REND = Project(
    "PointRend",
    f"{DETECTRON2_PROJECTS}/PointRend",
    (
        "INPUT.COLOR_AUG_SSD",
        "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA",
        f"{MASK_HEAD}.FC_DIM",
        f"{MASK_HEAD}.IN_FEATURES",
        f"{MASK_HEAD}.NUM_FC",
        f"{MASK_HEAD}.OUTPUT_SIDE_RESOLUTION",
        f"{MASK_HEAD}.POINT_HEAD_ON",
        "MODEL.POINT_HEAD.CLS_AGNOSTIC_MASK",
        "MODEL.POINT_HEAD.COARSE_PRED_EACH_LAYER",
        "MODEL.POINT_HEAD.COARSE_SEM_SEG_HEAD_NAME",
        "MODEL.POINT_HEAD.FC_DIM",
        "MODEL.POINT_HEAD.IMPORTANCE_SAMPLE_RATIO",
        "MODEL.POINT_HEAD.IN_FEATURES",
        "MODEL.POINT_HEAD.NAME",
        "MODEL.POINT_HEAD.NUM_CLASSES",
        "MODEL.POINT_HEAD.NUM_FC",
        "MODEL.POINT_HEAD.OVERSAMPLE_RATIO",
        "MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS",
        "MODEL.POINT_HEAD.SUBDIVISION_STEPS",
        "MODEL.POINT_HEAD.TRAIN_NUM_POINTS",
        "MODEL.IMPLICIT_POINTREND.IMAGE_FEATURE_ENABLED",
        "MODEL.IMPLICIT_POINTREND.PARAMS_L2_REGULARIZER",
        "MODEL.IMPLICIT_POINTREND.POS_ENC_ENABLED",
        "MODEL.ROI_HEADS.NAME=PointRendROIHeads",
        f"{MASK_HEAD}.NAME=PointRendMaskHead",
        f"{MASK_HEAD}.NAME=ImplicitPointRendMaskHead",
        f"{MASK_HEAD}.POOLER_TYPE=",
        f"{SEMANTIC}.NAME=PointRendSemSegHead",
    ),
)
DEEP_LAB = Project(
    "DeepLab",
    f"{DETECTRON2_PROJECTS}/DeepLab",
    (
        "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA",
        "MODEL.RESNETS.RES4_DILATION",
        "MODEL.RESNETS.RES5_MULTI_GRID",
        "MODEL.RESNETS.STEM_TYPE",
        f"{SEMANTIC}.ASPP_CHANNELS",
        f"{SEMANTIC}.ASPP_DILATIONS",
        f"{SEMANTIC}.ASPP_DROPOUT",
        f"{SEMANTIC}.LOSS_TYPE",
        f"{SEMANTIC}.PROJECT_CHANNELS",
        f"{SEMANTIC}.PROJECT_FEATURES",
        f"{SEMANTIC}.USE_DEPTHWISE_SEPARABLE_CONV",
        "MODEL.BACKBONE.NAME=build_resnet_deeplab_backbone",
        "MODEL.RESNETS.RES5_DILATION=4",
        f"{SEMANTIC}.NAME=DeepLabV3Head",
        f"{SEMANTIC}.NAME=DeepLabV3PlusHead",
    ),
)
PANOPTIC_DEEP_LAB = Project(
    "Panoptic-DeepLab",
    f"{DETECTRON2_PROJECTS}/Panoptic-DeepLab",
    (
        *DEEP_LAB.patterns,
        "INPUT.GAUSSIAN_SIGMA",
        "INPUT.IGNORE_CROWD_IN_SEMANTIC",
        "INPUT.IGNORE_STUFF_IN_OFFSET",
        "INPUT.SMALL_INSTANCE_AREA",
        "INPUT.SMALL_INSTANCE_WEIGHT",
        f"{INSTANCES}.ASPP_CHANNELS",
        f"{INSTANCES}.ASPP_DILATIONS",
        f"{INSTANCES}.ASPP_DROPOUT",
        f"{INSTANCES}.CENTER_LOSS_WEIGHT",
        f"{INSTANCES}.COMMON_STRIDE",
        f"{INSTANCES}.CONVS_DIM",
        f"{INSTANCES}.HEAD_CHANNELS",
        f"{INSTANCES}.IN_FEATURES",
        f"{INSTANCES}.NAME",
        f"{INSTANCES}.NORM",
        f"{INSTANCES}.OFFSET_LOSS_WEIGHT",
        f"{INSTANCES}.PROJECT_CHANNELS",
        f"{INSTANCES}.PROJECT_FEATURES",
        "MODEL.PANOPTIC_DEEPLAB.BENCHMARK_NETWORK_SPEED",
        "MODEL.PANOPTIC_DEEPLAB.CENTER_THRESHOLD",
        "MODEL.PANOPTIC_DEEPLAB.NMS_KERNEL",
        "MODEL.PANOPTIC_DEEPLAB.PREDICT_INSTANCES",
        "MODEL.PANOPTIC_DEEPLAB.SIZE_DIVISIBILITY",
        "MODEL.PANOPTIC_DEEPLAB.STUFF_AREA",
        "MODEL.PANOPTIC_DEEPLAB.TOP_K_INSTANCE",
        "MODEL.PANOPTIC_DEEPLAB.USE_DEPTHWISE_SEPARABLE_CONV",
        f"{SEMANTIC}.HEAD_CHANNELS",
        f"{SEMANTIC}.LOSS_TOP_K",
        "MODEL.META_ARCHITECTURE=PanopticDeepLab",
        f"{SEMANTIC}.NAME=PanopticDeepLabSemSegHead",
    ),
)
# In the order in which the package's keys are tried.
IN_PACKAGE = (DETECTRON2, POINT_REND, DEEP_LAB, PANOPTIC_DEEP_LAB)


def package_accepts(values: Mapping[str, Any]) -> bool:
    """Return whether the package accepts keys and values that our network does not support.

    Examples:
        >>> package_accepts({"MODEL.ROI_HEADS.NAME": "RROIHeads"})
        True
        >>> package_accepts({"MODEL.POINT_HEAD.FC_DIM": 256, "MODEL.RESNETS.RES4_DILATION": 1})
        False
    """
    return any(
        all(
            DETECTRON2.has(name, value) or project.has(name, value)
            for name, value in values.items()
        )
        for project in IN_PACKAGE
    )
