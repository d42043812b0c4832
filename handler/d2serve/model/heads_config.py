"""Configuration of the heads on a backbone: proposals, boxes, masks, keypoints and pixels.

Sizes are in pixels of the network's input, thresholds in 0..1.
"""

from dataclasses import dataclass

from d2serve.model.fcos_config import FCOSConfig

STANDARD_HEADS = "StandardROIHeads"
CASCADE_HEADS = "CascadeROIHeads"
RES5_HEADS = "Res5ROIHeads"
LEARNED_SCALE = -1.0


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
