"""Network of a lazy config as typed configuration."""

from collections.abc import Callable
from typing import Any

from d2serve.building.key_types import integer, one_of, per_channel
from d2serve.building.lazy_backbone import read_backbone
from d2serve.building.lazy_dense import read_fcos, read_retinanet
from d2serve.building.lazy_heads import read_roi_heads
from d2serve.building.lazy_node import LazyNode, Problems
from d2serve.building.lazy_rpn import read_rpn
from d2serve.building.lazy_yaml import MODEL_KEY
from d2serve.model.backbone_config import AnyBackboneConfig
from d2serve.model.config import Family, InputConfig, ModelConfig, RCNNConfig

INPUT_KEY = "input"


def parse_lazy(explicit: dict[str, Any]) -> ModelConfig:
    """Check the sections `model` and `input` of a lazy config.

    `input` has `channel_order` (RGB, BGR, RGBA or L), and `min_size` and `max_size` in pixels, to
    which images are resized.

    Raises:
        ConfigError: the config is not supported; the message lists every unsupported value.
    """
    root = LazyNode(
        "", {MODEL_KEY: explicit.get(MODEL_KEY), INPUT_KEY: explicit.get(INPUT_KEY)}, Problems()
    )
    model, sizes = root.child(MODEL_KEY), root.child(INPUT_KEY)
    read_family = FAMILIES[model.target(*FAMILIES)]
    model.ignore("input_format", "vis_period")
    images = _read_input(model, sizes)
    backbone = read_backbone(model.child("backbone"), images.channels)
    config = ModelConfig(images, backbone, read_family(model, backbone))
    _check_square(sizes, config)
    root.raise_problems()
    return config


def _read_rcnn(model: LazyNode, backbone: AnyBackboneConfig) -> RCNNConfig:
    rpn = read_rpn(model.child("proposal_generator"), backbone)
    return RCNNConfig(rpn, read_roi_heads(model.child("roi_heads"), backbone, rpn.max_proposals))


FAMILIES: dict[str, Callable[[LazyNode, AnyBackboneConfig], Family]] = {
    "GeneralizedRCNN": _read_rcnn,
    "RetinaNet": read_retinanet,
    "FCOS": read_fcos,
}


def _read_input(model: LazyNode, sizes: LazyNode) -> InputConfig:
    config = InputConfig(
        channel_order=sizes.required("channel_order", one_of("RGB", "BGR", "RGBA", "L")),
        min_size=sizes.required("min_size", integer(800, 0)),
        max_size=sizes.required("max_size", integer(1333, 1)),
        pixel_mean=tuple(model.required("pixel_mean", per_channel([0.0] * 3))),
        pixel_std=tuple(model.required("pixel_std", per_channel([1.0] * 3, divides=True))),
    )
    if len(config.pixel_std) != config.channels:
        model.add_conflict("pixel_std", f"must have {config.channels} values, as pixel_mean has")
    if config.channel_order == "RGBA" and config.channels != 4:
        sizes.add_conflict("channel_order", "requires four values in pixel_mean")
    return config


def _check_square(sizes: LazyNode, config: ModelConfig) -> None:
    """Check that images fit the square that they are padded to."""
    square = config.backbone.square_size
    if square and (config.input.min_size == 0 or config.input.max_size > square):
        sizes.add_conflict(
            "max_size", f"must be at most {square}, the side of the network's square"
        )
