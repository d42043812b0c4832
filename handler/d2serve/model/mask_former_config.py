"""Configuration of MaskFormer and Mask2Former."""

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


@dataclass(frozen=True)
class QueryInferenceConfig:
    """Selection of instances and segments from queries (MODEL.MASK_FORMER.TEST,
    MODEL.MaskDINO.TEST).

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
        has_no_object: whether class scores are a softmax over the classes and "no object", or
            independent probabilities (Mask DINO).
        temperature: of a softmax over these scores, which sharpens them for pixel classes and the
            panoptic map; 0 without it.
        rate_masks: whether the score of an instance is multiplied by the mean probability of its
            mask's pixels.
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
    has_no_object: bool = True
    temperature: float = 0.0
    rate_masks: bool = True


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
