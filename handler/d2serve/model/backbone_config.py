"""Configuration of backbones: ResNet, feature pyramid, Vision Transformer."""

from dataclasses import dataclass
from math import log2

STEM = "stem"
STAGES = ("res2", "res3", "res4", "res5")
BASIC_BLOCK_DEPTHS = (18, 34)


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

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the feature maps, finest first."""
        return (STEM,) * self.stem_feature + STAGES[: self.last_stage - 1]


@dataclass(frozen=True)
class FPNConfig:
    """A feature pyramid on ResNet stages.

    Attributes:
        in_features: consecutive stages up to res5; the stem may stand for res2.
        fuse_type: `sum` or `avg` of a level and the upsampled one above.
        top_convolutions: whether p6 and p7 are convolved from res5; else p6 is pooled from p5.
    """

    in_features: tuple[str, ...]
    out_channels: int
    fuse_type: str
    norm: str
    top_convolutions: bool


@dataclass(frozen=True)
class BackboneConfig:
    """A ResNet without a pyramid (C4, DC5), or with `fpn`."""

    resnet: ResNetConfig
    fpn: FPNConfig | None

    @property
    def square_size(self) -> int:
        """Side of the square that images are padded to; 0, because they are not."""
        return 0

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the feature maps, finest first."""
        if self.fpn is None:
            return self.resnet.features
        last = 7 if self.fpn.top_convolutions else 6
        return tuple(f"p{level}" for level in range(6 - len(self.fpn.in_features), last + 1))

    @property
    def levels(self) -> tuple[int, ...]:
        """Binary logarithms of the strides of `features`."""
        if self.fpn is not None:
            return tuple(int(name[1:]) for name in self.features)
        levels = {STEM: 2, "res2": 2, "res3": 3, "res4": 4, "res5": 5}
        levels["res5"] -= self.resnet.res5_dilation - 1
        return tuple(levels[name] for name in self.features)


@dataclass(frozen=True)
class ViTConfig:
    """A plain Vision Transformer.

    Attributes:
        image_size: side in pixels that the relative positions were trained for.
        dim: channels of a patch.
        norm_eps: added to the variance by layer norms.
        pretrain_image_size: side in pixels that the absolute positions were trained for.
        class_token: whether the first absolute position belongs to a class token.
        window_size: side in patches of the attention windows of `windowed_blocks`; the other
            blocks attend to the whole image.
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
