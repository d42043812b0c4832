"""The DensePose head of a keyed config as typed configuration."""

from d2serve.building.config_values import ConfigValues
from d2serve.building.densepose_keys import CONFIDENCE_PREDICTOR, DEEP_LAB, HEAD
from d2serve.model.backbone_config import BackboneConfig
from d2serve.model.heads_config import DensePoseConfig, PoolerConfig, SemanticConfig
from d2serve.model.layers import GROUP_NORM_GROUPS


def read_densepose(
    values: ConfigValues,
    backbone: BackboneConfig,
    features: tuple[str, ...],
    pooler: PoolerConfig,
) -> DensePoseConfig:
    """Read MODEL.ROI_DENSEPOSE_HEAD.

    Args:
        values: of a config with MODEL.DENSEPOSE_ON.
        backbone: of the config.
        features: the levels that regions are pooled from.
        pooler: of the head.
    """
    deep_lab = values[f"{HEAD}.NAME"] == DEEP_LAB
    with_confidences = (
        values[f"{HEAD}.PREDICTOR_NAME"] == CONFIDENCE_PREDICTOR
        and values[f"{HEAD}.SEGM_CONFIDENCE.ENABLED"]
    )
    config = DensePoseConfig(
        pooler=pooler,
        decoder=_read_decoder(values, backbone, features) if values[f"{HEAD}.DECODER_ON"] else None,
        deep_lab=deep_lab,
        num_conv=values[f"{HEAD}.NUM_STACKED_CONVS"],
        conv_dim=values[f"{HEAD}.CONV_HEAD_DIM"],
        kernel_size=values[f"{HEAD}.CONV_HEAD_KERNEL"],
        norm=values[f"{HEAD}.DEEPLAB.NORM"] if deep_lab else "",
        coarse_channels=values[f"{HEAD}.NUM_COARSE_SEGM_CHANNELS"],
        num_parts=values[f"{HEAD}.NUM_PATCHES"],
        deconv_kernel=values[f"{HEAD}.DECONV_KERNEL"],
        upscale=values[f"{HEAD}.UP_SCALE"],
        confidence_floor=values[f"{HEAD}.SEGM_CONFIDENCE.EPSILON"] if with_confidences else None,
    )
    if deep_lab:
        _check_deep_lab(values, backbone)
    return config


def _read_decoder(
    values: ConfigValues, backbone: BackboneConfig, features: tuple[str, ...]
) -> SemanticConfig:
    channels = values[f"{HEAD}.DECODER_NUM_CLASSES"]
    if backbone.fpn is None:
        values.add_conflict(f"{HEAD}.DECODER_ON", "must be False without an FPN")
    elif channels != backbone.fpn.out_channels:
        values.add_conflict(
            f"{HEAD}.DECODER_NUM_CLASSES",
            f"must be MODEL.FPN.OUT_CHANNELS, here {backbone.fpn.out_channels}",
        )
    finest = 2 ** backbone.levels[backbone.features.index(features[0])]
    stride = values[f"{HEAD}.DECODER_COMMON_STRIDE"]
    if stride > finest or stride & (stride - 1):
        values.add_conflict(
            f"{HEAD}.DECODER_COMMON_STRIDE",
            f"must be a power of 2 of at most {finest}, the stride of {features[0]}",
        )
    return SemanticConfig(
        in_features=features,
        num_classes=channels,
        conv_dim=values[f"{HEAD}.DECODER_CONV_DIMS"],
        common_stride=stride,
        norm=values[f"{HEAD}.DECODER_NORM"] or "",
    )


def _check_deep_lab(values: ConfigValues, backbone: BackboneConfig) -> None:
    values[f"{HEAD}.DEEPLAB.NONLOCAL_ON"]
    if values[f"{HEAD}.NUM_STACKED_CONVS"] == 0:
        values.add_conflict(f"{HEAD}.NUM_STACKED_CONVS", f"must be at least 1 for {DEEP_LAB}")
    if backbone.fpn is not None and backbone.fpn.out_channels % GROUP_NORM_GROUPS:
        values.add_conflict(
            "MODEL.FPN.OUT_CHANNELS", f"must be a multiple of {GROUP_NORM_GROUPS} for {DEEP_LAB}"
        )
