"""Configuration of backbones: bottom-up networks and feature pyramids."""

from dataclasses import dataclass
from math import log2

from d2serve.model.vision_transformer_config import BEiTConfig, SwinConfig, ViTConfig

STEM = "stem"
STAGES = ("res2", "res3", "res4", "res5")
VOVNET_STAGES = ("stage2", "stage3", "stage4", "stage5")
BASIC_BLOCK_DEPTHS = (18, 34)
# Levels above a pyramid: none, every second pixel of the last level, or one or two convolutions.
NO_TOP = "none"
POOLED_TOP = "pool"
ONE_CONVOLUTION, TWO_CONVOLUTIONS = "p6", "p6p7"
TOP_LEVELS = {NO_TOP: 0, POOLED_TOP: 1, ONE_CONVOLUTION: 1, TWO_CONVOLUTIONS: 2}


@dataclass(frozen=True)
class DeformConfig:
    """Deformable convolutions, of version 2 if `modulated`; `groups` is the number of offset
    groups."""

    modulated: bool
    groups: int


@dataclass(frozen=True)
class ResNetConfig:
    """The stem and the stages res2 to `last_stage`.

    Attributes:
        norm: the convolutions have no bias, also without a norm (NO_NORM_NO_BIAS).
        deform: an entry per stage, None for plain convolutions.
        stem_feature: whether the stem's output is a feature map too.
        deep_stem: whether three 3x3 convolutions replace the stem's 7x7 convolution (DeepLab).
        res4_dilation: 2 keeps the stride of res3.
        res5_dilation: more than 1 keeps the stride of res4.
        res5_multi_grid: factors of the dilation of each block of res5; empty for 1.
    """

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
    stem_feature: bool = False
    deep_stem: bool = False
    res4_dilation: int = 1
    res5_multi_grid: tuple[int, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the feature maps, finest first."""
        return (STEM,) * self.stem_feature + STAGES[: self.last_stage - 1]

    @property
    def levels(self) -> tuple[int, ...]:
        """Binary logarithms of the strides of `features`."""
        res4 = 3 if self.res4_dilation > 1 else 4
        res5 = res4 if self.res5_dilation > 1 else res4 + 1
        levels = {STEM: 2, "res2": 2, "res3": 3, "res4": res4, "res5": res5}
        return tuple(levels[name] for name in self.features)


@dataclass(frozen=True)
class VoVNetConfig:
    """The stem and the stages up to the last of `features`.

    Attributes:
        stem_channels: of the stem's three convolutions.
        widths: for each stage, channels of its 3x3 convolutions.
        out_channels: for each stage, channels of its feature map.
        layers_per_block: number of 3x3 convolutions of a block.
        blocks_per_stage: for each stage.
        depthwise: whether the 3x3 convolutions, except the first, are depthwise separable.
        deform: an entry per stage, None for plain convolutions.
        features: names of the feature maps, finest first.
    """

    stem_channels: tuple[int, ...]
    widths: tuple[int, ...]
    out_channels: tuple[int, ...]
    layers_per_block: int
    blocks_per_stage: tuple[int, ...]
    depthwise: bool
    norm: str
    deform: tuple[DeformConfig | None, ...]
    features: tuple[str, ...]

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of all stages that are computed, finest first."""
        return VOVNET_STAGES[: VOVNET_STAGES.index(self.features[-1]) + 1]

    @property
    def levels(self) -> tuple[int, ...]:
        """Binary logarithms of the strides of `features`."""
        return tuple(VOVNET_STAGES.index(name) + 2 for name in self.features)


@dataclass(frozen=True)
class ConvNeXtConfig:
    """A ConvNeXt; each stage halves the resolution, the first has stride 4.

    Attributes:
        depths, dims: number of blocks, and of channels, of each stage.
        layer_scale: whether residual branches are scaled per channel.
        features: names of the feature maps, finest first.
        feature_stages: the stage of each feature map, from 0.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    layer_scale: bool
    features: tuple[str, ...]
    feature_stages: tuple[int, ...]

    @property
    def levels(self) -> tuple[int, ...]:
        """Binary logarithms of the strides of `features`."""
        return tuple(2 + stage for stage in self.feature_stages)


# The network of a backbone that computes feature maps of several strides from an image.
BottomUpConfig = ResNetConfig | VoVNetConfig | SwinConfig | ConvNeXtConfig | BEiTConfig


@dataclass(frozen=True)
class FPNConfig:
    """A feature pyramid on a bottom-up network.

    Attributes:
        in_features: of the bottom-up network, finest first; each of half the stride of the next.
        fuse_type: `sum` or `avg` of a level and the upsampled one above.
        top_block: a key of TOP_LEVELS.
        top_of_pyramid: whether the top is convolved from the pyramid's last level; else from the
            last of `in_features`.
        square_size: side in pixels of the square that images are padded to; 0 for none.
    """

    in_features: tuple[str, ...]
    out_channels: int
    fuse_type: str
    norm: str
    top_block: str
    top_of_pyramid: bool = False
    square_size: int = 0


@dataclass(frozen=True)
class BackboneConfig:
    """A bottom-up network without a pyramid, or with `fpn`."""

    bottom_up: BottomUpConfig
    fpn: FPNConfig | None

    @property
    def square_size(self) -> int:
        """Side of the square that images are padded to; 0 for none."""
        return 0 if self.fpn is None else self.fpn.square_size

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the feature maps, finest first."""
        if self.fpn is None:
            return self.bottom_up.features
        return tuple(f"p{level}" for level in self.levels)

    @property
    def levels(self) -> tuple[int, ...]:
        """Binary logarithms of the strides of `features`."""
        bottom_up = self.bottom_up
        if self.fpn is None:
            return bottom_up.levels
        levels = dict(zip(bottom_up.features, bottom_up.levels, strict=True))
        first, last = (levels[self.fpn.in_features[index]] for index in (0, -1))
        return tuple(range(first, last + TOP_LEVELS[self.fpn.top_block] + 1))


@dataclass(frozen=True)
class SimpleFPNConfig:
    """A pyramid scaled from a transformer's last feature map (ViTDet), finest level first.

    Attributes:
        scale_factors: 4.0, 2.0, 1.0 or 0.5, each half of the one before.
        pooled_top: whether one more level is pooled from the coarsest.
        square_size: side in pixels of the square that images are padded to.
    """

    vit: ViTConfig
    out_channels: int
    scale_factors: tuple[float, ...]
    norm: str
    pooled_top: bool
    square_size: int

    @property
    def levels(self) -> tuple[int, ...]:
        """Binary logarithms of the scaled levels' strides."""
        return tuple(int(log2(self.vit.patch_size / scale)) for scale in self.scale_factors)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the feature maps, finest first."""
        levels = self.levels
        top = (levels[-1] + 1,) if self.pooled_top else ()
        return tuple(f"p{level}" for level in (*levels, *top))


AnyBackboneConfig = BackboneConfig | SimpleFPNConfig
