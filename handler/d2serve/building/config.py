"""Read a Detectron2 config, keyed or lazy, as a ModelConfig."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from d2serve.building.config_values import ConfigValues
from d2serve.building.keyed_backbone import read_backbone
from d2serve.building.keyed_heads import read_retinanet, read_roi_heads, read_rpn, read_semantic
from d2serve.building.lazy_model import parse_lazy
from d2serve.building.lazy_yaml import MODEL_KEY, is_lazy_config, read_lazy_config
from d2serve.building.yaml_config import read_yaml_config
from d2serve.model.backbone_config import BackboneConfig
from d2serve.model.config import (
    Family,
    InputConfig,
    ModelConfig,
    PanopticConfig,
    ProposalNetworkConfig,
    RCNNConfig,
)


def load_config(path: Path) -> ModelConfig:
    """Read and check a YAML config.

    Raises:
        ConfigError: the config cannot be read; else see `parse_config`.
    """
    return parse_config(read_config(path))


def read_config(path: Path) -> dict[str, Any]:
    """Read the values that a YAML config sets.

    Raises:
        ConfigError: the config cannot be read.
    """
    return read_lazy_config(path) if is_lazy_config(path) else read_yaml_config(path)


def parse_config(explicit: dict[str, Any]) -> ModelConfig:
    """Check the values that a config sets; Detectron2's defaults apply to the rest.

    Raises:
        ConfigError: the config is not supported; the message lists every unsupported value.
    """
    return parse_lazy(explicit) if MODEL_KEY in explicit else _parse_keyed(explicit)


def _parse_keyed(explicit: dict[str, Any]) -> ModelConfig:
    values = ConfigValues(explicit)
    values["VERSION"]
    backbone = read_backbone(values)
    config = ModelConfig(_read_input(values), backbone, _read_family(values, backbone))
    values.raise_problems()
    return config


def _read_input(values: ConfigValues) -> InputConfig:
    config = InputConfig(
        channel_order=values["INPUT.FORMAT"],
        min_size=values["INPUT.MIN_SIZE_TEST"],
        max_size=values["INPUT.MAX_SIZE_TEST"],
        pixel_mean=tuple(values["MODEL.PIXEL_MEAN"]),
        pixel_std=tuple(values["MODEL.PIXEL_STD"]),
    )
    if config.min_size and config.max_size < 1:
        values.add_conflict("INPUT.MAX_SIZE_TEST", "must be at least 1 unless MIN_SIZE_TEST is 0")
    if len(config.pixel_std) == 1:
        config = replace(config, pixel_std=config.pixel_std * config.channels)
    if len(config.pixel_std) != config.channels:
        values.add_conflict(
            "MODEL.PIXEL_STD", f"must have {config.channels} values, as MODEL.PIXEL_MEAN has"
        )
    if config.channel_order == "RGBA" and config.channels != 4:
        values.add_conflict("INPUT.FORMAT", "requires four values in MODEL.PIXEL_MEAN")
    return config


def _read_family(values: ConfigValues, backbone: BackboneConfig) -> Family:
    match values["MODEL.META_ARCHITECTURE"]:
        case "ProposalNetwork":
            return ProposalNetworkConfig(read_rpn(values, backbone))
        case "RetinaNet":
            return read_retinanet(values, backbone)
        case "SemanticSegmentor":
            return read_semantic(values, backbone)
        case "PanopticFPN":
            return _read_panoptic(values, backbone)
        case _:
            return _read_rcnn(values, backbone)


def _read_rcnn(values: ConfigValues, backbone: BackboneConfig) -> RCNNConfig:
    rpn = read_rpn(values, backbone)
    return RCNNConfig(rpn, read_roi_heads(values, backbone, rpn.max_proposals))


def _read_panoptic(values: ConfigValues, backbone: BackboneConfig) -> PanopticConfig:
    combine = "MODEL.PANOPTIC_FPN.COMBINE"
    return PanopticConfig(
        rcnn=_read_rcnn(values, backbone),
        semantic=read_semantic(values, backbone),
        overlap_threshold=values[f"{combine}.OVERLAP_THRESH"],
        stuff_area_limit=values[f"{combine}.STUFF_AREA_LIMIT"],
        instance_threshold=values[f"{combine}.INSTANCES_CONFIDENCE_THRESH"],
    )
