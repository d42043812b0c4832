"""Resolved configuration of a network, as typed dataclasses."""

from dataclasses import dataclass, replace
from math import log2

STAGES = ("res2", "res3", "res4", "res5")
BASIC_BLOCK_DEPTHS = (18, 34)


@dataclass(frozen=True)
class DeformConfig:
    """Deformable convolutions: of version 2 where `modulated`, with so many groups of offsets."""

    modulated: bool
    groups: int


@dataclass(frozen=True)
class ResNetConfig:
    """Stages res2 to `last_stage`; `deform` has an entry per stage, None for plain convolutions."""

    depth: int
    num_groups: int
    width_per_group: int
    stride_in_1x1: bool
    res2_out_channels: int
    stem_out_channels: int
    norm: str
    res5_dilation: int
    deform: tuple[DeformConfig | None, ...]
    last_stage: int


@dataclass(frozen=True)
class FPNConfig:
    """`top_convolutions` makes p6 and p7 from res5 by convolutions, else p6 is pooled from p5."""

    in_features: tuple[str, ...]
    out_channels: int
    fuse_type: str
    norm: str
    top_convolutions: bool


@dataclass(frozen=True)
class BackboneConfig:
    """A ResNet (C4, DC5) or, where `fpn` is there, a pyramid on it."""

    resnet: ResNetConfig
    fpn: FPNConfig | None

    @property
    def square_size(self) -> int:
        """The side of a square that pictures are padded to; there is none."""
        return 0

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the feature maps that the backbone gives, finest first."""
        if self.fpn is None:
            return STAGES[: self.resnet.last_stage - 1]
        first = int(self.fpn.in_features[0].removeprefix("res"))
        last = 7 if self.fpn.top_convolutions else 6
        return tuple(f"p{level}" for level in range(first, last + 1))


@dataclass(frozen=True)
class ViTConfig:
    """A plain Vision Transformer.

    Attributes:
        image_size: the side in pixels that relative positions are trained for.
        dim: the channels of every patch.
        norm_eps: what layer norms add to the variance.
        pretrain_image_size: the side in pixels that absolute positions are trained for; the first
            of them is the class token's where `class_token`.
        window_size: in patches, of the attention in `windowed_blocks`; the others see all.
    """

    image_size: int
    patch_size: int
    dim: int
    depth: int
    heads: int
    mlp_ratio: float
    qkv_bias: bool
    norm_eps: float
    absolute_positions: bool
    pretrain_image_size: int
    class_token: bool
    relative_positions: bool
    window_size: int
    windowed_blocks: tuple[int, ...]


@dataclass(frozen=True)
class SimpleFPNConfig:
    """Levels scaled from a transformer's last feature map, finest first.

    Attributes:
        scale_factors: 4.0, 2.0, 1.0 or 0.5, each half of the one before.
        pooled_top: whether one more level is pooled from the coarsest.
        square_size: the side in pixels of the square that pictures are padded to.
    """

    vit: ViTConfig
    out_channels: int
    scale_factors: tuple[float, ...]
    norm: str
    pooled_top: bool
    square_size: int

    @property
    def levels(self) -> tuple[int, ...]:
        """The binary logarithms of the scaled levels' strides."""
        return tuple(int(log2(self.vit.patch_size / scale)) for scale in self.scale_factors)

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the feature maps that the backbone gives, finest first."""
        levels = self.levels
        top = (levels[-1] + 1,) if self.pooled_top else ()
        return tuple(f"p{level}" for level in (*levels, *top))


AnyBackboneConfig = BackboneConfig | SimpleFPNConfig


@dataclass(frozen=True)
class AnchorConfig:
    """Per level: sizes in pixels of the network's input (square roots of areas) and ratios height /
    width; `offset` is where in its cell an anchor's centre lies, 0 (top left) to 1."""

    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[tuple[float, ...], ...]
    offset: float

    @property
    def per_cell(self) -> int:
        """How many anchors each pixel of a feature map has."""
        return len(self.sizes[0]) * len(self.ratios[0])


@dataclass(frozen=True)
class RPNConfig:
    """Region proposals."""

    in_features: tuple[str, ...]
    conv_dims: tuple[int, ...]
    box_weights: tuple[float, ...]
    pre_nms_topk: int
    post_nms_topk: int
    nms_threshold: float
    min_box_size: float
    anchors: AnchorConfig


@dataclass(frozen=True)
class RetinaNetConfig:
    """Dense detection by two subnets of `num_convs` convolutions on every level."""

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
    """A class for every pixel, predicted at `common_stride` pixels of the network's input."""

    in_features: tuple[str, ...]
    num_classes: int
    conv_dim: int
    common_stride: int
    norm: str


STANDARD_HEADS = "StandardROIHeads"
CASCADE_HEADS = "CascadeROIHeads"
RES5_HEADS = "Res5ROIHeads"


@dataclass(frozen=True)
class PoolerConfig:
    """RoIAlign to a square of `resolution` cells; `aligned` by half a pixel (ROIAlignV2);
    `sampling_ratio` points a cell and direction, 0 for as many as it has pixels."""

    resolution: int
    sampling_ratio: int
    aligned: bool


@dataclass(frozen=True)
class BoxHeadConfig:
    """Layers on each pooled region."""

    num_conv: int
    conv_dim: int
    num_fc: int
    fc_dim: int
    norm: str


@dataclass(frozen=True)
class BoxPredictorConfig:
    """Scores and boxes from a region's features."""

    num_classes: int
    class_agnostic: bool
    sigmoid_scores: bool
    box_weights: tuple[float, ...]


@dataclass(frozen=True)
class SelectionConfig:
    """Which of the scored boxes are detections."""

    score_threshold: float
    nms_threshold: float
    max_detections: int


@dataclass(frozen=True)
class MaskHeadConfig:
    """Convolutions on each region, then a mask for each class or for all alike."""

    pooler: PoolerConfig
    num_conv: int
    conv_dim: int
    norm: str
    class_agnostic: bool


@dataclass(frozen=True)
class KeypointHeadConfig:
    """Convolutions on each region, then a heatmap for each keypoint."""

    pooler: PoolerConfig
    conv_dims: tuple[int, ...]
    num_keypoints: int


@dataclass(frozen=True)
class ROIHeadsConfig:
    """`name` says what finds the boxes: one head, a cascade of them (whose stages have their own
    `cascade_weights`), or the backbone's last stage."""

    name: str
    in_features: tuple[str, ...]
    pooler: PoolerConfig
    box: BoxHeadConfig
    predictor: BoxPredictorConfig
    cascade_weights: tuple[tuple[float, ...], ...]
    selection: SelectionConfig
    mask: MaskHeadConfig | None
    keypoint: KeypointHeadConfig | None


NO_LAYERS = BoxHeadConfig(num_conv=0, conv_dim=0, num_fc=0, fc_dim=0, norm="")


@dataclass(frozen=True)
class InputConfig:
    """How a picture enters the network; sizes in pixels, `min_size` 0 means no resize."""

    channel_order: str
    min_size: int
    max_size: int
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]


@dataclass(frozen=True)
class ProposalNetworkConfig:
    """Proposals alone: boxes of one class."""

    rpn: RPNConfig


@dataclass(frozen=True)
class RCNNConfig:
    """Instances from proposals."""

    rpn: RPNConfig
    roi_heads: ROIHeadsConfig


@dataclass(frozen=True)
class PanopticConfig:
    """Instances and a class for every pixel, combined into one map of segments.

    Attributes:
        overlap_threshold: the part of an instance, 0..1, that surer ones may hide before it is left
            out.
        stuff_area_limit: stuff on fewer pixels is left out.
        instance_threshold: instances of lower scores, 0..1, are left out.
    """

    rcnn: RCNNConfig
    semantic: SemanticConfig
    overlap_threshold: float
    stuff_area_limit: int
    instance_threshold: float


@dataclass(frozen=True)
class OutputConfig:
    """What answers may hold.

    Attributes:
        num_classes: the classes of instances (things).
        num_stuff_classes: those of pixels; 0 where the model does not segment.
        score_threshold: the least score, 0..1, that the network lets through.
        max_detections: how many instances of one picture it gives at most.
    """

    num_classes: int
    num_stuff_classes: int
    score_threshold: float
    max_detections: int


Family = ProposalNetworkConfig | RCNNConfig | RetinaNetConfig | SemanticConfig | PanopticConfig


@dataclass(frozen=True)
class ModelConfig:
    """A whole network."""

    input: InputConfig
    backbone: AnyBackboneConfig
    family: Family

    @property
    def output(self) -> OutputConfig:
        """What the family's answers may hold."""
        return _output(self.family)


def _output(family: Family) -> OutputConfig:
    match family:
        case RCNNConfig(roi_heads=heads):
            selection = heads.selection
            return OutputConfig(
                heads.predictor.num_classes, 0, selection.score_threshold, selection.max_detections
            )
        case PanopticConfig(rcnn=rcnn, semantic=semantic):
            return replace(_output(rcnn), num_stuff_classes=semantic.num_classes)
        case RetinaNetConfig() as retinanet:
            return OutputConfig(
                retinanet.num_classes, 0, retinanet.score_threshold, retinanet.max_detections
            )
        case SemanticConfig() as semantic:
            return OutputConfig(0, semantic.num_classes, score_threshold=0.0, max_detections=1)
        case ProposalNetworkConfig(rpn=rpn):
            return OutputConfig(1, 0, score_threshold=0.0, max_detections=rpn.post_nms_topk)
