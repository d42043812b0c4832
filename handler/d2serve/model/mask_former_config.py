"""Configuration of MaskFormer's pixel decoder and transformer decoder."""

from dataclasses import dataclass

MASKED_DECODER = "MultiScaleMaskedTransformerDecoder"
STANDARD_DECODER = "StandardTransformerDecoder"
# Outputs of the pixel decoder that a transformer decoder reads, beside feature maps.
MULTI_SCALE, ENCODED, EMBEDDING = (
    "multi_scale_pixel_decoder",
    "transformer_encoder",
    "pixel_embedding",
)
# The masked decoder attends to the three coarsest maps in turn.
NUM_SCALES = 3


@dataclass(frozen=True)
class TransformerConfig:
    """Layers of a transformer's encoder or decoder.

    Attributes:
        pre_norm: whether the norms come before attention and feedforward layers, or after them.
    """

    layers: int
    heads: int
    ffn_dim: int
    pre_norm: bool


@dataclass(frozen=True)
class DeformableEncoderConfig:
    """Layers of deformable attention over several feature maps (MSDeformAttnPixelDecoder).

    Attributes:
        in_features: names of the maps, finest first.
        fpn_levels: number of finer maps that are added after the encoder.
    """

    in_features: tuple[str, ...]
    layers: int
    heads: int
    fpn_levels: int


@dataclass(frozen=True)
class PixelDecoderConfig:
    """From feature maps to an embedding of each pixel.

    Attributes:
        in_features: names of the maps, finest first.
        conv_dim: channels in between.
        mask_dim: channels of the embedding.
        norm: of the convolutions.
        encoder: over several maps or over the coarsest one; None without an encoder
            (BasePixelDecoder).
    """

    in_features: tuple[str, ...]
    conv_dim: int
    mask_dim: int
    norm: str
    encoder: DeformableEncoderConfig | TransformerConfig | None


@dataclass(frozen=True)
class QueryDecoderConfig:
    """From queries to classes and mask embeddings.

    Attributes:
        name: MASKED_DECODER or STANDARD_DECODER.
        in_feature: MULTI_SCALE for the masked decoder; else ENCODED, EMBEDDING or the name of a
            feature map.
        project_input: whether the input is projected even if it has `hidden_dim` channels.
        encoder_layers: of the standard decoder's own encoder.
    """

    name: str
    in_feature: str
    hidden_dim: int
    num_queries: int
    project_input: bool
    encoder_layers: int
    transformer: TransformerConfig
