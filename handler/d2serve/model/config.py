"""Resolved configuration of a network: the `ModelConfig` and its parts.

Sizes are in pixels of the network's input, thresholds in 0..1.
"""

from dataclasses import dataclass, replace

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
from d2serve.model.mask_former_config import PixelDecoderConfig, QueryDecoderConfig

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
class QueryInferenceConfig:
    """Selection of instances and segments from queries (MODEL.MASK_FORMER.TEST).

    Things and stuff are classes of one list.

    Attributes:
        num_classes: number of classes, without "no object".
        things: indices of the classes of countable objects; ignored unless `panoptic`.
        instance, semantic, panoptic: the outputs; at least one.
        object_mask_threshold: queries of lower scores, 0..1, are not in the panoptic map.
        overlap_threshold: share of its mask, 0..1, that a query must keep beside the other queries
            to be in the panoptic map.
        max_detections: number of pairs of a query and a class that are instances.
        confident_pixels_only: whether a segment of the panoptic map contains only pixels with a
            mask probability of at least 0.5 (Mask2Former), or also other ones (MaskFormer).
        resize_first: whether masks are resized to the original image before pixel classes are
            computed (SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE, or instances or a panoptic map),
            or the scores of the classes after.
    """

    num_classes: int
    things: tuple[int, ...]
    instance: bool
    semantic: bool
    panoptic: bool
    object_mask_threshold: float
    overlap_threshold: float
    max_detections: int
    confident_pixels_only: bool
    resize_first: bool


@dataclass(frozen=True)
class MaskFormerConfig:
    """A class and a mask for each of a fixed number of queries (MaskFormer, Mask2Former).

    Attributes:
        size_divisibility: sides in pixels of padded images are multiples of it; 1 for any sides.
    """

    size_divisibility: int
    pixel_decoder: PixelDecoderConfig
    decoder: QueryDecoderConfig
    inference: QueryInferenceConfig


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
    | SemanticConfig
    | PanopticConfig
    | MaskFormerConfig
)


@dataclass(frozen=True)
class ModelConfig:
    """A whole network; the type of `family` chooses the meta-architecture."""

    input: InputConfig
    backbone: AnyBackboneConfig
    family: Family

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
        case MaskFormerConfig(inference=inference):
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
