"""MaskFormer and Mask2Former of a keyed config as typed configuration."""

from math import log2

from d2serve.building.config_values import ConfigValues
from d2serve.building.keyed_dense import read_features
from d2serve.building.keyed_queries import (
    by_stride,
    check_outputs,
    read_divisibility,
    read_inference,
)
from d2serve.building.mask_former_keys import (
    DECODER,
    DEFORMABLE_DECODER,
    ENCODED_FEATURES,
    ENCODER_DECODER,
    HEAD,
    OF_MASK2FORMER,
    QUERIES,
    TEST,
)
from d2serve.model.backbone_config import BackboneConfig
from d2serve.model.layers import GROUP_NORM_GROUPS, NO_NORM_NO_BIAS
from d2serve.model.mask_former_config import (
    EMBEDDING,
    ENCODED,
    MASKED_DECODER,
    MULTI_SCALE,
    NUM_SCALES,
    STANDARD_DECODER,
    DeformableEncoderConfig,
    MaskFormerConfig,
    PixelDecoderConfig,
    QueryDecoderConfig,
    QueryInferenceConfig,
    TransformerConfig,
)

IN_FEATURE = f"{QUERIES}.TRANSFORMER_IN_FEATURE"


def read_mask_former(values: ConfigValues, backbone: BackboneConfig) -> MaskFormerConfig:
    """Read MODEL.MASK_FORMER and MODEL.SEM_SEG_HEAD."""
    if values[f"{HEAD}.NAME"] != "MaskFormerHead":
        values.add_conflict(f"{HEAD}.NAME", "must be 'MaskFormerHead' for MaskFormer")
    is_second = any(name in values.given for name in OF_MASK2FORMER)
    pixels = _read_pixel_decoder(values, backbone)
    return MaskFormerConfig(
        size_divisibility=read_divisibility(values, QUERIES, backbone),
        pixel_decoder=pixels,
        decoder=_read_decoder(values, backbone, pixels, is_second),
        inference=_read_inference(values, is_second),
    )


def _read_pixel_decoder(values: ConfigValues, backbone: BackboneConfig) -> PixelDecoderConfig:
    name = values[f"{HEAD}.PIXEL_DECODER_NAME"]
    features = by_stride(read_features(f"{HEAD}.IN_FEATURES", values, backbone), backbone)
    norm = values[f"{HEAD}.NORM"]
    encoder: DeformableEncoderConfig | TransformerConfig | None = None
    if name == DEFORMABLE_DECODER:
        encoder = _read_deformable(values, backbone, features)
    elif name == ENCODER_DECODER:
        encoder = _read_transformer(values, values[f"{HEAD}.TRANSFORMER_ENC_LAYERS"])
    dim = values[f"{HEAD}.CONVS_DIM"]
    if encoder is not None:
        _check_heads(values, f"{HEAD}.CONVS_DIM")
    if name == DEFORMABLE_DECODER and dim % GROUP_NORM_GROUPS:
        values.add_conflict(
            f"{HEAD}.CONVS_DIM", f"must be a multiple of {GROUP_NORM_GROUPS} for {name}"
        )
    return PixelDecoderConfig(
        in_features=features,
        conv_dim=dim,
        mask_dim=values[f"{HEAD}.MASK_DIM"],
        # Only the norm "" has a bias in its place.
        norm=NO_NORM_NO_BIAS if norm is None else norm,
        encoder=encoder,
    )


def _read_deformable(
    values: ConfigValues, backbone: BackboneConfig, features: tuple[str, ...]
) -> DeformableEncoderConfig:
    encoded = by_stride(read_features(ENCODED_FEATURES, values, backbone), backbone)
    if not set(encoded) <= set(features):
        values.add_conflict(ENCODED_FEATURES, f"must be of {HEAD}.IN_FEATURES, {list(features)!r}")
    finest = backbone.levels[backbone.features.index(encoded[0])]
    stride = values[f"{HEAD}.COMMON_STRIDE"]
    levels = finest - int(log2(stride))
    if not 0 <= levels <= len(features):
        values.add_conflict(
            f"{HEAD}.COMMON_STRIDE", f"must be at most {2**finest}, the stride of {encoded[0]}"
        )
    return DeformableEncoderConfig(
        in_features=encoded,
        layers=values[f"{HEAD}.TRANSFORMER_ENC_LAYERS"],
        heads=values[f"{QUERIES}.NHEADS"],
        fpn_levels=levels,
    )


def _read_transformer(values: ConfigValues, layers: int) -> TransformerConfig:
    return TransformerConfig(
        layers=layers,
        heads=values[f"{QUERIES}.NHEADS"],
        ffn_dim=values[f"{QUERIES}.DIM_FEEDFORWARD"],
        pre_norm=values[f"{QUERIES}.PRE_NORM"],
    )


def _check_heads(values: ConfigValues, key: str) -> None:
    """Positions have sines and cosines of two coordinates; heads share the channels."""
    heads = values[f"{QUERIES}.NHEADS"]
    if values[key] % heads or values[key] % 4:
        values.add_conflict(key, f"must be a multiple of 4 and of {QUERIES}.NHEADS, {heads}")


def _read_decoder(
    values: ConfigValues, backbone: BackboneConfig, pixels: PixelDecoderConfig, is_second: bool
) -> QueryDecoderConfig:
    name = values[DECODER] if is_second else STANDARD_DECODER
    source = values[IN_FEATURE]
    layers = values[f"{QUERIES}.DEC_LAYERS"]
    _check_heads(values, f"{QUERIES}.HIDDEN_DIM")
    _check_source(values, backbone, pixels, name)
    return QueryDecoderConfig(
        name=name,
        in_feature=source,
        hidden_dim=values[f"{QUERIES}.HIDDEN_DIM"],
        num_queries=values[f"{QUERIES}.NUM_OBJECT_QUERIES"],
        project_input=values[f"{QUERIES}.ENFORCE_INPUT_PROJ"],
        # The masked decoder has no encoder, and one layer less: queries are predictions themselves.
        encoder_layers=0 if name == MASKED_DECODER else values[f"{QUERIES}.ENC_LAYERS"],
        transformer=_read_transformer(values, layers - (name == MASKED_DECODER)),
    )


def _check_source(
    values: ConfigValues, backbone: BackboneConfig, pixels: PixelDecoderConfig, decoder: str
) -> None:
    source = values[IN_FEATURE]
    if (decoder == MASKED_DECODER) != (source == MULTI_SCALE):
        values.add_conflict(IN_FEATURE, f"must be {MULTI_SCALE!r} for {MASKED_DECODER} only")
    elif source == ENCODED and pixels.encoder is None:
        values.add_conflict(IN_FEATURE, "requires a PIXEL_DECODER_NAME with an encoder")
    elif source not in (ENCODED, EMBEDDING, MULTI_SCALE, *backbone.features):
        values.add_conflict(IN_FEATURE, f"supported: one of {list(backbone.features)!r}")
    encoder, scales = pixels.encoder, len(pixels.in_features)
    if isinstance(encoder, DeformableEncoderConfig):
        scales = len(encoder.in_features) + encoder.fpn_levels
    if decoder == MASKED_DECODER and scales < NUM_SCALES:
        values.add_conflict(
            f"{HEAD}.IN_FEATURES", f"must have at least {NUM_SCALES} maps for {MASKED_DECODER}"
        )


def _read_inference(values: ConfigValues, is_second: bool) -> QueryInferenceConfig:
    if is_second:
        check_outputs(values, QUERIES)
    # MaskFormer always returns a semantic map, and never instances.
    return read_inference(
        values,
        QUERIES,
        instance=is_second and values[f"{TEST}.INSTANCE_ON"],
        semantic=not is_second or values[f"{TEST}.SEMANTIC_ON"],
        confident_pixels_only=is_second,
    )
