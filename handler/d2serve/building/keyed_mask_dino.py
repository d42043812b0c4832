"""Mask DINO of a keyed config as typed configuration."""

from dataclasses import replace
from math import log2

from d2serve.building.config_values import ConfigValues
from d2serve.building.keyed_dense import read_features
from d2serve.building.keyed_queries import (
    by_stride,
    check_outputs,
    read_divisibility,
    read_inference,
)
from d2serve.building.mask_dino_keys import DINO, FINEST_FIRST, TEST
from d2serve.building.mask_former_keys import ENCODED_FEATURES, HEAD
from d2serve.model.backbone_config import BackboneConfig
from d2serve.model.layers import GROUP_NORM_GROUPS, NO_NORM_NO_BIAS
from d2serve.model.mask_dino_config import (
    PREDICTED_BOXES,
    BoxPixelDecoderConfig,
    BoxQueryDecoderConfig,
    MaskDINOConfig,
)
from d2serve.model.mask_former_config import QueryInferenceConfig

LEVELS = f"{HEAD}.TOTAL_NUM_FEATURE_LEVELS"
BOXES = f"{DINO}.INITIALIZE_BOX_TYPE"


def read_mask_dino(values: ConfigValues, backbone: BackboneConfig) -> MaskDINOConfig:
    """Read MODEL.MaskDINO and MODEL.SEM_SEG_HEAD."""
    if values[f"{HEAD}.NAME"] != "MaskDINOHead":
        values.add_conflict(f"{HEAD}.NAME", "must be 'MaskDINOHead' for MaskDINO")
    return MaskDINOConfig(
        size_divisibility=read_divisibility(values, DINO, backbone),
        pixel_decoder=_read_pixel_decoder(values, backbone),
        decoder=_read_decoder(values),
        inference=_read_inference(values),
    )


def _read_pixel_decoder(values: ConfigValues, backbone: BackboneConfig) -> BoxPixelDecoderConfig:
    values[f"{HEAD}.PIXEL_DECODER_NAME"]
    features = by_stride(read_features(f"{HEAD}.IN_FEATURES", values, backbone), backbone)
    encoded = by_stride(read_features(ENCODED_FEATURES, values, backbone), backbone)
    if not set(encoded) <= set(features):
        values.add_conflict(ENCODED_FEATURES, f"must be of {HEAD}.IN_FEATURES, {list(features)!r}")
    dim, heads = values[f"{HEAD}.CONVS_DIM"], values[f"{DINO}.NHEADS"]
    if dim % GROUP_NORM_GROUPS or dim % heads:
        values.add_conflict(
            f"{HEAD}.CONVS_DIM",
            f"must be a multiple of {GROUP_NORM_GROUPS} and of {DINO}.NHEADS, {heads}",
        )
    finest = backbone.levels[backbone.features.index(encoded[0])]
    # The project adds the finest map even if the encoder has read it.
    added = max(int(finest - log2(values[f"{HEAD}.COMMON_STRIDE"])), 1)
    norm = values[f"{HEAD}.NORM"]
    return BoxPixelDecoderConfig(
        in_features=features,
        encoded_features=encoded,
        extra_levels=_read_extra_levels(values, len(encoded)),
        finest_first=values[f"{HEAD}.FEATURE_ORDER"] == FINEST_FIRST,
        fpn_levels=min(added, len(features)),
        conv_dim=dim,
        mask_dim=values[f"{HEAD}.MASK_DIM"],
        # Only the norm "" has a bias in its place.
        norm=NO_NORM_NO_BIAS if norm is None else norm,
        layers=values[f"{HEAD}.TRANSFORMER_ENC_LAYERS"],
        heads=heads,
        ffn_dim=values[f"{HEAD}.DIM_FEEDFORWARD"],
    )


def _read_extra_levels(values: ConfigValues, encoded: int) -> int:
    """The number of levels above those of the backbone; the project has none above a single map."""
    extra: int = values[LEVELS] - encoded
    if extra < 0 or (extra and encoded == 1):
        least = "" if encoded == 1 else "at least "
        values.add_conflict(LEVELS, f"must be {least}{encoded}, the number of {ENCODED_FEATURES}")
        return 0
    return extra


def _read_decoder(values: ConfigValues) -> BoxQueryDecoderConfig:
    values[f"{DINO}.TRANSFORMER_DECODER_NAME"]
    two_stage, boxes = values[f"{DINO}.TWO_STAGE"], values[BOXES]
    if boxes != PREDICTED_BOXES and not (two_stage and values[f"{DINO}.INITIAL_PRED"]):
        values.add_conflict(BOXES, f"requires {DINO}.TWO_STAGE and {DINO}.INITIAL_PRED")
    return BoxQueryDecoderConfig(
        hidden_dim=values[f"{DINO}.HIDDEN_DIM"],
        num_queries=values[f"{DINO}.NUM_OBJECT_QUERIES"],
        layers=values[f"{DINO}.DEC_LAYERS"],
        ffn_dim=values[f"{DINO}.DIM_FEEDFORWARD"],
        project_input=values[f"{DINO}.ENFORCE_INPUT_PROJ"],
        two_stage=two_stage,
        learned_content=values[f"{DINO}.LEARN_TGT"],
        initial_boxes=boxes,
    )


def _read_inference(values: ConfigValues) -> QueryInferenceConfig:
    check_outputs(values, DINO)
    shared = read_inference(
        values,
        DINO,
        instance=values[f"{TEST}.INSTANCE_ON"],
        semantic=values[f"{TEST}.SEMANTIC_ON"],
        confident_pixels_only=True,
    )
    return replace(
        shared,
        has_no_object=_read_has_no_object(values, shared.instance or shared.panoptic),
        temperature=_read_temperature(values),
        rate_masks=not values[f"{TEST}.TEST_FOUCUS_ON_BOX"],
    )


def _read_has_no_object(values: ConfigValues, has_segments: bool) -> bool:
    """True if "no object" is a class, as in networks for pixel classes only."""
    name = f"{DINO}.SEMANTIC_CE_LOSS"
    has_no_object: bool = values[name] and values[f"{TEST}.SEMANTIC_ON"]
    if has_no_object and has_segments:
        values.add_conflict(
            name, f"requires {TEST}.SEMANTIC_ON alone: the project mixes up classes of instances"
        )
    return has_no_object


def _read_temperature(values: ConfigValues) -> float:
    """0 without a softmax over the scores of the classes; "no object" has one in any case."""
    name = f"{TEST}.PANO_TEMPERATURE"
    if not values[f"{TEST}.PANO_TRANSFORM_EVAL"] or values[f"{DINO}.SEMANTIC_CE_LOSS"]:
        return 0.0
    temperature: float = values[name]
    if temperature <= 0:
        values.add_conflict(name, f"must be above 0 with {TEST}.PANO_TRANSFORM_EVAL")
    return temperature
