"""Network of a lazy config as typed configuration."""

from typing import Any

from d2serve.building.key_types import integer, numbers, one_of
from d2serve.building.lazy_backbone import read_backbone
from d2serve.building.lazy_heads import read_roi_heads
from d2serve.building.lazy_node import LazyNode, Problems
from d2serve.building.lazy_rpn import read_rpn
from d2serve.building.lazy_yaml import MODEL_KEY
from d2serve.model.config import InputConfig, ModelConfig, RCNNConfig

INPUT_KEY = "input"


def parse_lazy(explicit: dict[str, Any]) -> ModelConfig:
    """Check the sections `model` and `input` of a lazy config.

    `input` has `channel_order` (RGB or BGR), and `min_size` and `max_size` in pixels, to which
    images are resized.

    Raises:
        ConfigError: the config is not supported; the message lists every unsupported value.
    """
    root = LazyNode(
        "", {MODEL_KEY: explicit.get(MODEL_KEY), INPUT_KEY: explicit.get(INPUT_KEY)}, Problems()
    )
    model, sizes = root.child(MODEL_KEY), root.child(INPUT_KEY)
    model.target("GeneralizedRCNN")
    model.ignore("input_format", "vis_period")
    backbone = read_backbone(model.child("backbone"))
    config = ModelConfig(
        input=InputConfig(
            channel_order=sizes.required("channel_order", one_of("RGB", "BGR")),
            min_size=sizes.required("min_size", integer(800, 0)),
            max_size=sizes.required("max_size", integer(1333, 1)),
            pixel_mean=tuple(model.required("pixel_mean", numbers([0.0] * 3, count=3))),
            pixel_std=tuple(model.required("pixel_std", numbers([1.0] * 3, 3, positive=True))),
        ),
        backbone=backbone,
        family=RCNNConfig(
            read_rpn(model.child("proposal_generator"), backbone),
            read_roi_heads(model.child("roi_heads"), backbone),
        ),
    )
    _check_square(sizes, config)
    root.raise_problems()
    return config


def _check_square(sizes: LazyNode, config: ModelConfig) -> None:
    """Check that images fit the square that they are padded to."""
    square = config.backbone.square_size
    if square and (config.input.min_size == 0 or config.input.max_size > square):
        sizes.add_conflict(
            "max_size", f"must be at most {square}, the side of the network's square"
        )
