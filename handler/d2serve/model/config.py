"""Resolved configuration of a network: the `ModelConfig` and its parts.

Sizes are in pixels of the network's input, thresholds in 0..1.
"""

from dataclasses import dataclass, replace

from d2serve.model.backbone_config import AnyBackboneConfig
from d2serve.model.fcos_config import CondInstConfig, FCOSConfig
from d2serve.model.mask_former_config import PixelDecoderConfig, QueryDecoderConfig

STANDARD_HEADS = "StandardROIHeads"
CASCADE_HEADS = "CascadeROIHeads"
RES5_HEADS = "Res5ROIHeads"
GREY = "L"
LEARNED_SCALE = -1.0


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
        decoupled: whether an affine layer precedes it.
    """

    in_features: tuple[str, ...]
    conv_dims: tuple[int, ...]
    box_weights: tuple[float, ...]
    pre_nms_topk: int
    post_nms_topk: int
    nms_threshold: float
    min_box_size: float
    anchors: AnchorConfig
    decoupled: bool = False

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
    """Scores and boxes from a region's features.

    Attributes:
        cosine_scale: factor of cosine similarities, LEARNED_SCALE for one among the weights; None
            if scores are a linear function of the features.
    """

    num_classes: int
    class_agnostic: bool
    sigmoid_scores: bool
    box_weights: tuple[float, ...]
    cosine_scale: float | None = None


@dataclass(frozen=True)
class SelectionConfig:
    """Selection of detections among the scored boxes; the thresholds may be outside 0..1."""

    score_threshold: float
    nms_threshold: float
    max_detections: int


@dataclass(frozen=True)
class MaskHeadConfig:
    """Convolutions on each region, then a mask per class, or one if `class_agnostic`.

    Attributes:
        spatial_attention: whether every pixel of the last convolution's output is scaled.
    """

    pooler: PoolerConfig
    num_conv: int
    conv_dim: int
    norm: str
    class_agnostic: bool
    spatial_attention: bool = False


@dataclass(frozen=True)
class KeypointHeadConfig:
    """Convolutions on each region, then a heatmap per keypoint."""

    pooler: PoolerConfig
    conv_dims: tuple[int, ...]
    num_keypoints: int


@dataclass(frozen=True)
class MaskIoUConfig:
    """Convolutions on each region and its mask, which predict the mask's quality."""

    num_conv: int
    conv_dim: int


@dataclass(frozen=True)
class CenterMaskConfig:
    """Masks of the detections of FCOS.

    Attributes:
        in_features: of the masks.
        num_classes: of the masks; at least as many as FCOS has.
        level_by_ratio: whether a region's level depends on its share of the image's area, or on its
            size in pixels.
    """

    fcos: FCOSConfig
    in_features: tuple[str, ...]
    num_classes: int
    level_by_ratio: bool
    mask: MaskHeadConfig | None
    mask_iou: MaskIoUConfig | None


@dataclass(frozen=True)
class SemanticConfig:
    """A class for every pixel, predicted on a grid of stride `common_stride`."""

    in_features: tuple[str, ...]
    num_classes: int
    conv_dim: int
    common_stride: int
    norm: str


@dataclass(frozen=True)
class DensePoseConfig:
    """Part labels and surface coordinates of each region (the project DensePose).

    Attributes:
        pooler: pools from the decoder's map, else from all levels.
        decoder: adds up all levels before pooling; its classes are its output channels.
        deep_lab: whether the head starts with atrous convolutions (DensePoseDeepLabHead).
        num_conv, conv_dim, kernel_size, norm: of the convolutions on each region.
        coarse_channels: coarse classes; the first is the background.
        num_parts: parts of the surface, 24 for a person.
        deconv_kernel: side of the kernels of the last layer, which doubles the resolution.
        upscale: factor of a bilinear scaling after that.
        confidence_floor: lowest confidence of a class; None without confidences.
    """

    pooler: PoolerConfig
    decoder: SemanticConfig | None
    deep_lab: bool
    num_conv: int
    conv_dim: int
    kernel_size: int
    norm: str
    coarse_channels: int
    num_parts: int
    deconv_kernel: int
    upscale: int
    confidence_floor: float | None


@dataclass(frozen=True)
class ROIHeadsConfig:
    """Box head and optional mask, keypoint and DensePose heads.

    Attributes:
        name: STANDARD_HEADS, CASCADE_HEADS or RES5_HEADS.
        cascade_weights: box weights of each stage of a cascade.
        decoupled: whether an affine layer precedes them.
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
    densepose: DensePoseConfig | None = None
    decoupled: bool = False


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
