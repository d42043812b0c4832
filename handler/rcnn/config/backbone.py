"""The config of the backbones: a ResNet, by itself or under a feature pyramid."""

from dataclasses import dataclass
from math import log2

from handler.rcnn.config.values import ConfigValues

STAGES = ("res2", "res3", "res4", "res5")
BASIC_BLOCK_DEPTHS = (18, 34)
ON_POOLING = "build_resnet_fpn_backbone"
ON_CONVOLUTIONS = "build_retinanet_resnet_fpn_backbone"


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


def read_backbone(values: ConfigValues) -> BackboneConfig:
    """Reads MODEL.BACKBONE, MODEL.RESNETS and MODEL.FPN."""
    name = values["MODEL.BACKBONE.NAME"]
    resnet = _read_resnet(values)
    if name not in (ON_POOLING, ON_CONVOLUTIONS):
        return BackboneConfig(resnet, fpn=None)
    features = tuple(values["MODEL.FPN.IN_FEATURES"])
    stages = STAGES[: resnet.last_stage - 1]
    if not features or features != stages[-len(features) :] or features[-1] != "res5":
        offered = f"MODEL.RESNETS.OUT_FEATURES, here {values['MODEL.RESNETS.OUT_FEATURES']!r}"
        values.refuse("MODEL.FPN.IN_FEATURES", f"must be the last of {offered}, up to 'res5'")
    if resnet.res5_dilation != 1:
        values.refuse("MODEL.RESNETS.RES5_DILATION", "must be 1 under a pyramid")
    fpn = FPNConfig(
        in_features=features,
        out_channels=values["MODEL.FPN.OUT_CHANNELS"],
        fuse_type=values["MODEL.FPN.FUSE_TYPE"],
        norm=values["MODEL.FPN.NORM"],
        top_convolutions=name == ON_CONVOLUTIONS,
    )
    return BackboneConfig(resnet, fpn)


def _read_resnet(values: ConfigValues) -> ResNetConfig:
    out_features = values["MODEL.RESNETS.OUT_FEATURES"]
    stages = [STAGES.index(name) + 2 for name in out_features if name in STAGES]
    if len(stages) < len(out_features):
        values.refuse("MODEL.RESNETS.OUT_FEATURES", f"there are {', '.join(STAGES)}")
    deform = DeformConfig(
        values["MODEL.RESNETS.DEFORM_MODULATED"], values["MODEL.RESNETS.DEFORM_NUM_GROUPS"]
    )
    per_stage = values["MODEL.RESNETS.DEFORM_ON_PER_STAGE"]
    config = ResNetConfig(
        depth=values["MODEL.RESNETS.DEPTH"],
        num_groups=values["MODEL.RESNETS.NUM_GROUPS"],
        width_per_group=values["MODEL.RESNETS.WIDTH_PER_GROUP"],
        stride_in_1x1=values["MODEL.RESNETS.STRIDE_IN_1X1"],
        res2_out_channels=values["MODEL.RESNETS.RES2_OUT_CHANNELS"],
        stem_out_channels=values["MODEL.RESNETS.STEM_OUT_CHANNELS"],
        norm=values["MODEL.RESNETS.NORM"],
        res5_dilation=values["MODEL.RESNETS.RES5_DILATION"],
        deform=tuple(deform if deforms else None for deforms in per_stage),
        last_stage=max(stages, default=2),
    )
    if config.depth in BASIC_BLOCK_DEPTHS:
        _require_basic(values)
    return config


def _require_basic(values: ConfigValues) -> None:
    needed = {
        "RES2_OUT_CHANNELS": 64,
        "NUM_GROUPS": 1,
        "RES5_DILATION": 1,
        "DEFORM_ON_PER_STAGE": [False] * 4,
    }
    for name, value in needed.items():
        if values[f"MODEL.RESNETS.{name}"] != value:
            values.refuse(f"MODEL.RESNETS.{name}", f"must be {value} for depth 18 and 34")
