"""Configuration of backbones that are Vision Transformers: ViT, BEiT and Swin."""

from dataclasses import dataclass
from math import log2


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
class SwinConfig:
    """A Swin Transformer; each stage halves the resolution and doubles the channels.

    Attributes:
        dim: channels of the first stage.
        depths, heads: number of blocks, and of attention heads, of each stage.
        query_scale: factor of the queries; None for 1 / sqrt(channels of a head).
        norm_eps: added to the variance by layer norms.
        pretrain_image_size: side in pixels that the absolute positions were trained for.
        features: names of the feature maps, finest first.
        feature_stages: the stage of each feature map, from 0.
    """

    patch_size: int
    dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window_size: int
    mlp_ratio: float
    qkv_bias: bool
    query_scale: float | None
    norm_eps: float
    patch_norm: bool
    absolute_positions: bool
    pretrain_image_size: int
    features: tuple[str, ...]
    feature_stages: tuple[int, ...]

    @property
    def levels(self) -> tuple[int, ...]:
        """Binary logarithms of the strides of `features`."""
        return tuple(int(log2(self.patch_size)) + stage for stage in self.feature_stages)


@dataclass(frozen=True)
class BEiTConfig:
    """A plain Vision Transformer with feature maps of strides 4, 8, 16 and 32 (DiT).

    Attributes:
        dim: channels of a patch and of every feature map.
        layer_scale: whether residual branches are scaled per channel.
        positions_hw: height and width of the grid that the absolute positions were trained for.
        features: names of the feature maps, finest first.
        feature_blocks: the block that each feature map is scaled from, from 0.
    """

    patch_size: int
    dim: int
    depth: int
    heads: int
    layer_scale: bool
    positions_hw: tuple[int, ...]
    features: tuple[str, ...]
    feature_blocks: tuple[int, ...]

    @property
    def levels(self) -> tuple[int, ...]:
        """Binary logarithms of the strides of `features`."""
        return (2, 3, 4, 5)
