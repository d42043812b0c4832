"""Resolved configuration of a network: the `ModelConfig` and its parts.

Sizes are in pixels of the network's input, thresholds in 0..1.
"""

from dataclasses import dataclass, replace

from d2serve.model.augmentation_config import AugmentationConfig
from d2serve.model.backbone_config import AnyBackboneConfig
from d2serve.model.fcos_config import CondInstConfig, FCOSConfig
from d2serve.model.heads_config import (
    AnchorConfig,
    CenterMaskConfig,
    DensePoseConfig,
    ROIHeadsConfig,
    RPNConfig,
    SemanticConfig,
)
from d2serve.model.mask_dino_config import MaskDINOConfig
from d2serve.model.mask_former_config import MaskFormerConfig, QueryInferenceConfig
from d2serve.model.sparse_rcnn_config import SparseRCNNConfig

GREY = "L"


@dataclass(frozen=True)
class InputConfig:
    """Preprocessing of an image; `min_size` 0 means that it is not resized.

    Attributes:
        channel_order: BGR, RGB, RGBA or L (grey).
        pixel_mean, pixel_std: of each channel; 1, 3 or 4 channels. A grey image stands for all of
            them.
    """

    channel_order: str
    min_size: int
    max_size: int
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]

    @property
    def channels(self) -> int:
        """Number of channels of the network's input."""
        return len(self.pixel_mean)

    @property
    def is_grey(self) -> bool:
        """Return whether images are converted to grey."""
        return self.channel_order == GREY or self.channels == 1


@dataclass(frozen=True)
class ProposalNetworkConfig:
    """Proposals only: boxes of one class."""

    rpn: RPNConfig


@dataclass(frozen=True)
class RCNNConfig:
    """Instances from proposals."""

    rpn: RPNConfig
    roi_heads: ROIHeadsConfig


@dataclass(frozen=True)
class RetinaNetConfig:
    """Dense detection by two subnets of `num_convs` convolutions on every level.

    Attributes:
        norm: the norms "BN" and "SyncBN" have weights of all levels, and statistics of each.
        max_detections: if negative, the number of lowest scores to leave out, times -1.
    """

    in_features: tuple[str, ...]
    num_classes: int
    num_convs: int
    norm: str
    box_weights: tuple[float, ...]
    score_threshold: float
    topk_per_level: int
    nms_threshold: float
    max_detections: int
    anchors: AnchorConfig


@dataclass(frozen=True)
class PanopticConfig:
    """Instances and a class for every pixel, combined into one map of segments.

    Attributes:
        overlap_threshold: share of an instance's mask, 0..1, that instances of higher scores may
            cover before it is left out.
        stuff_area_limit: stuff regions of fewer pixels are left out.
        instance_threshold: instances of lower scores, 0..1, are left out.
    """

    rcnn: RCNNConfig | CenterMaskConfig
    semantic: SemanticConfig
    overlap_threshold: float
    stuff_area_limit: int
    instance_threshold: float


@dataclass(frozen=True)
class OutputConfig:
    """Limits of a network's output.

    Attributes:
        num_classes: number of classes of instances (things).
        num_stuff_classes: number of classes of pixels; 0 without a semantic head.
        score_threshold: lowest score, 0..1, of a detection.
        max_detections: highest number of detections per image.
    """

    num_classes: int
    num_stuff_classes: int
    score_threshold: float
    max_detections: int


Family = (
    ProposalNetworkConfig
    | RCNNConfig
    | RetinaNetConfig
    | FCOSConfig
    | CenterMaskConfig
    | CondInstConfig
    | SparseRCNNConfig
    | SemanticConfig
    | PanopticConfig
    | MaskFormerConfig
    | MaskDINOConfig
)


@dataclass(frozen=True)
class ModelConfig:
    """A whole network; the type of `family` chooses the meta-architecture.

    Attributes:
        augmentation: the versions of an image that the network runs; None for `input`'s only.
    """

    input: InputConfig
    backbone: AnyBackboneConfig
    family: Family
    augmentation: AugmentationConfig | None = None

    @property
    def output(self) -> OutputConfig:
        """Limits of the output."""
        return _output(self.family)

    @property
    def densepose(self) -> DensePoseConfig | None:
        """The DensePose head; None without one."""
        match self.family:
            case RCNNConfig(roi_heads=heads) | PanopticConfig(rcnn=RCNNConfig(roi_heads=heads)):
                return heads.densepose
            case _:
                return None


def _output(family: Family) -> OutputConfig:
    match family:
        case RCNNConfig(roi_heads=heads):
            selection = heads.selection
            threshold, limit = selection.score_threshold, selection.max_detections
            return _limits(heads.predictor.num_classes, threshold, limit)
        case PanopticConfig(rcnn=rcnn, semantic=semantic):
            return replace(_output(rcnn), num_stuff_classes=semantic.num_classes)
        case RetinaNetConfig() | FCOSConfig() | CenterMaskConfig() | CondInstConfig():
            return _output_of_dense(family)
        case SparseRCNNConfig():
            return _limits(family.num_classes, 0.0, family.num_proposals)
        case MaskFormerConfig(inference=inference) | MaskDINOConfig(inference=inference):
            return _output_of_queries(inference)
        case SemanticConfig() as semantic:
            return OutputConfig(0, semantic.num_classes, score_threshold=0.0, max_detections=1)
        case ProposalNetworkConfig(rpn=rpn):
            return _limits(1, 0.0, rpn.max_proposals)


def _output_of_dense(
    family: RetinaNetConfig | FCOSConfig | CenterMaskConfig | CondInstConfig,
) -> OutputConfig:
    if isinstance(family, RetinaNetConfig):
        limit = family.max_detections
        if limit < 0:
            limit = len(family.in_features) * family.topk_per_level
        return _limits(family.num_classes, family.score_threshold, limit)
    fcos = family if isinstance(family, FCOSConfig) else family.fcos
    return _limits(fcos.num_classes, fcos.min_score, fcos.max_detections)


def _output_of_queries(config: QueryInferenceConfig) -> OutputConfig:
    """Instances, pixels and segments have classes of one list."""
    return OutputConfig(
        num_classes=config.num_classes if config.instance or config.panoptic else 0,
        num_stuff_classes=config.num_classes if config.semantic or config.panoptic else 0,
        score_threshold=0.0,
        max_detections=max(config.max_detections, 1),
    )


def _limits(num_classes: int, score_threshold: float, max_detections: int) -> OutputConfig:
    """Limits of a network without pixel classes; no score is outside 0..1."""
    threshold = min(max(score_threshold, 0.0), 1.0)
    return OutputConfig(num_classes, 0, threshold, max(max_detections, 1))
