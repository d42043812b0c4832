"""Configuration of Mask DINO."""

from dataclasses import dataclass

from d2serve.model.mask_former_config import QueryInferenceConfig

# Sources of the boxes that the decoder refines: predicted at the selected cells, or tight boxes of
# masks, with the end of the last pixel or with its number (MODEL.MaskDINO.INITIALIZE_BOX_TYPE).
PREDICTED_BOXES, TIGHT_BOXES, PIXEL_BOXES = "no", "bitmask", "mask2box"


@dataclass(frozen=True)
class BoxPixelDecoderConfig:
    """A deformable encoder over several feature maps, and finer maps added to its finest output
    (MaskDINOEncoder).

    Attributes:
        in_features: names of the maps, finest first.
        encoded_features: those that the encoder reads, finest first.
        extra_levels: number of coarser maps, each convolved from the next finer one.
        finest_first: order of the maps in the encoder (FEATURE_ORDER `low2high`).
        fpn_levels: number of finer maps that are added after the encoder, at least 1.
        conv_dim: channels in between.
        mask_dim: channels of the embedding of each pixel.
        norm: of the convolutions after the encoder.
    """

    in_features: tuple[str, ...]
    encoded_features: tuple[str, ...]
    extra_levels: int
    finest_first: bool
    fpn_levels: int
    conv_dim: int
    mask_dim: int
    norm: str
    layers: int
    heads: int
    ffn_dim: int

    @property
    def levels(self) -> int:
        """Number of maps that the encoder reads."""
        return len(self.encoded_features) + self.extra_levels


@dataclass(frozen=True)
class BoxQueryDecoderConfig:
    """From queries with boxes to classes, refined boxes and mask embeddings (MaskDINODecoder).

    Attributes:
        project_input: whether the maps are projected even if they have `hidden_dim` channels.
        two_stage: whether queries are selected among the cells of the maps, or learned.
        learned_content: whether only the boxes are those of the selected cells (LEARN_TGT).
        initial_boxes: PREDICTED_BOXES, TIGHT_BOXES or PIXEL_BOXES.
    """

    hidden_dim: int
    num_queries: int
    layers: int
    ffn_dim: int
    project_input: bool
    two_stage: bool
    learned_content: bool
    initial_boxes: str


@dataclass(frozen=True)
class MaskDINOConfig:
    """A class, a box and a mask for each of a fixed number of queries (Mask DINO).

    Attributes:
        size_divisibility: sides in pixels of padded images are multiples of it; 1 for any sides.
    """

    size_divisibility: int
    pixel_decoder: BoxPixelDecoderConfig
    decoder: BoxQueryDecoderConfig
    inference: QueryInferenceConfig
