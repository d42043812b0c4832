"""Resolved configuration of a network: the `ModelConfig` and its parts.

Sizes are in pixels of the network's input, thresholds in 0..1.
"""

from dataclasses import dataclass, replace

from d2serve.model.backbone_config import AnyBackboneConfig

STANDARD_HEADS = "StandardROIHeads"
CASCADE_HEADS = "CascadeROIHeads"
RES5_HEADS = "Res5ROIHeads"
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
class AnchorConfig:
    """Anchors of each level; their number is equal on all levels.

    Attributes:
        sizes: for each level, square roots of areas.
        ratios: for each level, height / width.
        offset: position of an anchor's centre in its grid cell, 0 (top left) to 1.
    """

    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[tuple[float, ...], ...]
    offset: float

    @property
    def per_cell(self) -> int:
        """Number of anchors at each pixel of a feature map."""
        return len(self.sizes[0]) * len(self.ratios[0])


@dataclass(frozen=True)
class RPNConfig:
    """Region proposal network.

    Attributes:
        conv_dims: may be empty; an entry of -1 keeps the number of channels.
        post_nms_topk: if negative, the number of lowest scores to leave out, times -1.
    """

    in_features: tuple[str, ...]
    conv_dims: tuple[int, ...]
    box_weights: tuple[float, ...]
    pre_nms_topk: int
    post_nms_topk: int
    nms_threshold: float
    min_box_size: float
    anchors: AnchorConfig

    @property
    def max_proposals(self) -> int:
        """Highest number of proposals for an image."""
        if self.post_nms_topk >= 0:
            return self.post_nms_topk
        return len(self.in_features) * self.pre_nms_topk


@dataclass(frozen=True)
class PoolerConfig:
    """RoIAlign, or RoIPool, to `resolution` x `resolution` bins.

    Attributes:
        sampling_ratio: samples per bin and direction; at most 0 for one per feature pixel.
        aligned: whether boxes are shifted by half a pixel (ROIAlignV2).
        takes_maximum: whether each bin is the maximum of its feature pixels (RoIPool); the other
            values do not count then.
    """

    resolution: int
    sampling_ratio: int
    aligned: bool
    takes_maximum: bool = False


@dataclass(frozen=True)
class BoxHeadConfig:
    """Layers on each pooled region."""

    num_conv: int
    conv_dim: int
    num_fc: int
    fc_dim: int
    norm: str


NO_LAYERS = BoxHeadConfig(num_conv=0, conv_dim=0, num_fc=0, fc_dim=0, norm="")


@dataclass(frozen=True)
class BoxPredictorConfig:
    """Scores and boxes from a region's features."""

    num_classes: int
    class_agnostic: bool
    sigmoid_scores: bool
    box_weights: tuple[float, ...]


@dataclass(frozen=True)
class SelectionConfig:
    """Selection of detections among the scored boxes; the thresholds may be outside 0..1."""

    score_threshold: float
    nms_threshold: float
    max_detections: int


@dataclass(frozen=True)
class MaskHeadConfig:
    """Convolutions on each region, then a mask per class, or one if `class_agnostic`."""

    pooler: PoolerConfig
    num_conv: int
    conv_dim: int
    norm: str
    class_agnostic: bool


@dataclass(frozen=True)
class KeypointHeadConfig:
    """Convolutions on each region, then a heatmap per keypoint."""

    pooler: PoolerConfig
    conv_dims: tuple[int, ...]
    num_keypoints: int


@dataclass(frozen=True)
class ROIHeadsConfig:
    """Box head and optional mask and keypoint heads.

    Attributes:
        name: STANDARD_HEADS, CASCADE_HEADS or RES5_HEADS.
        cascade_weights: box weights of each stage of a cascade.
    """

    name: str
    in_features: tuple[str, ...]
    pooler: PoolerConfig
    box: BoxHeadConfig
    predictor: BoxPredictorConfig
    cascade_weights: tuple[tuple[float, ...], ...]
    selection: SelectionConfig
    mask: MaskHeadConfig | None
    keypoint: KeypointHeadConfig | None


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
class SemanticConfig:
    """A class for every pixel, predicted on a grid of stride `common_stride`."""

    in_features: tuple[str, ...]
    num_classes: int
    conv_dim: int
    common_stride: int
    norm: str


@dataclass(frozen=True)
class PanopticConfig:
    """Instances and a class for every pixel, combined into one map of segments.

    Attributes:
        overlap_threshold: share of an instance's mask, 0..1, that instances of higher scores may
            cover before it is left out.
        stuff_area_limit: stuff regions of fewer pixels are left out.
        instance_threshold: instances of lower scores, 0..1, are left out.
    """

    rcnn: RCNNConfig
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


Family = ProposalNetworkConfig | RCNNConfig | RetinaNetConfig | SemanticConfig | PanopticConfig


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


def _output(family: Family) -> OutputConfig:
    match family:
        case RCNNConfig(roi_heads=heads):
            selection = heads.selection
            threshold, limit = selection.score_threshold, selection.max_detections
            return _limits(heads.predictor.num_classes, threshold, limit)
        case PanopticConfig(rcnn=rcnn, semantic=semantic):
            return replace(_output(rcnn), num_stuff_classes=semantic.num_classes)
        case RetinaNetConfig() as retinanet:
            limit = retinanet.max_detections
            if limit < 0:
                limit = len(retinanet.in_features) * retinanet.topk_per_level
            return _limits(retinanet.num_classes, retinanet.score_threshold, limit)
        case SemanticConfig() as semantic:
            return OutputConfig(0, semantic.num_classes, score_threshold=0.0, max_detections=1)
        case ProposalNetworkConfig(rpn=rpn):
            return _limits(1, 0.0, rpn.max_proposals)


def _limits(num_classes: int, score_threshold: float, max_detections: int) -> OutputConfig:
    """Limits of a network without pixel classes; no score is outside 0..1."""
    threshold = min(max(score_threshold, 0.0), 1.0)
    return OutputConfig(num_classes, 0, threshold, max(max_detections, 1))
