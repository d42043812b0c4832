"""Read a Detectron2 config, keyed or lazy, as a ModelConfig."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from d2serve.building.augmentation import OPTION, read_augmentation
from d2serve.building.config_values import ConfigValues
from d2serve.building.fcos_keys import CENTER_HEADS
from d2serve.building.keyed_backbone import read_backbone
from d2serve.building.keyed_center_mask import read_center_mask
from d2serve.building.keyed_dense import read_retinanet, read_rpn, read_semantic
from d2serve.building.keyed_fcos import read_condinst, read_fcos
from d2serve.building.keyed_heads import read_roi_heads
from d2serve.building.keyed_mask_dino import read_mask_dino
from d2serve.building.keyed_mask_former import read_mask_former
from d2serve.building.keyed_sparse_rcnn import read_sparse_rcnn
from d2serve.building.lazy_model import parse_lazy
from d2serve.building.lazy_yaml import MODEL_KEY, is_lazy_config, read_lazy_config
from d2serve.building.yaml_config import read_yaml_config
from d2serve.errors import ConfigError
from d2serve.model.backbone_config import BackboneConfig
from d2serve.model.config import (
    Family,
    InputConfig,
    ModelConfig,
    PanopticConfig,
    ProposalNetworkConfig,
    RCNNConfig,
)
from d2serve.model.heads_config import CenterMaskConfig


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


def parse_config(explicit: dict[str, Any], *, augment: bool = False) -> ModelConfig:
    """Check the values that a config sets; Detectron2's defaults apply to the rest.

    Args:
        explicit: the values by key, nested.
        augment: whether the network runs the versions of an image that TEST.AUG describes.

    Raises:
        ConfigError: the config is not supported; the message lists every unsupported value.
    """
    if MODEL_KEY not in explicit:
        return _parse_keyed(explicit, augment)
    if augment:
        raise ConfigError(
            f"{OPTION} is for configs with keys such as TEST.AUG.MIN_SIZES; this is "
            "a lazy config, which has none; remove the option"
        )
    return parse_lazy(explicit)


def _parse_keyed(explicit: dict[str, Any], augment: bool) -> ModelConfig:
    values = ConfigValues(explicit)
    values["VERSION"]
    backbone = read_backbone(values)
    family = _read_family(values, backbone)
    augmentation = read_augmentation(values, family) if augment else None
    config = ModelConfig(_read_input(values), backbone, family, augmentation)
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
    readers: dict[str, Callable[[ConfigValues, BackboneConfig], Family]] = {
        "CondInst": read_condinst,
        "MaskDINO": read_mask_dino,
        "MaskFormer": read_mask_former,
        "OneStageDetector": read_fcos,
        "PanopticFPN": _read_panoptic,
        "ProposalNetwork": _read_proposals,
        "RetinaNet": read_retinanet,
        "SemanticSegmentor": read_semantic,
        "SparseRCNN": read_sparse_rcnn,
    }
    return readers.get(values["MODEL.META_ARCHITECTURE"], _read_rcnn)(values, backbone)


def _read_proposals(values: ConfigValues, backbone: BackboneConfig) -> ProposalNetworkConfig:
    return ProposalNetworkConfig(read_rpn(values, backbone))


def _read_rcnn(values: ConfigValues, backbone: BackboneConfig) -> RCNNConfig | CenterMaskConfig:
    if values["MODEL.ROI_HEADS.NAME"] == CENTER_HEADS:
        return read_center_mask(values, backbone)
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
