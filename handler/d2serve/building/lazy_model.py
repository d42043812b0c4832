"""A whole network as a lazy config describes it."""

from typing import Any

from d2serve.building.key_types import integer, numbers, one_of
from d2serve.building.lazy_backbone import read_backbone
from d2serve.building.lazy_heads import read_roi_heads, read_rpn
from d2serve.building.lazy_node import LazyNode, Problems, require_served
from d2serve.building.lazy_yaml import MODEL_KEY
from d2serve.model.config import InputConfig, ModelConfig, RCNNConfig

INPUT_KEY = "input"


def parse_lazy(explicit: dict[str, Any]) -> ModelConfig:
    """Checks a lazy config's `model`, and `input`: its `channel_order` (RGB or BGR), and `min_size`
    and `max_size` in pixels, to which pictures are resized.

    Raises:
        ConfigError: it asks for something that is not supported; the message names every such key
            with its value.
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
            channel_order=sizes.needed("channel_order", one_of("RGB", "BGR")),
            min_size=sizes.needed("min_size", integer(800, 0)),
            max_size=sizes.needed("max_size", integer(1333, 1)),
            pixel_mean=tuple(model.needed("pixel_mean", numbers([0.0] * 3, count=3))),
            pixel_std=tuple(model.needed("pixel_std", numbers([1.0] * 3, 3, positive=True))),
        ),
        backbone=backbone,
        family=RCNNConfig(
            read_rpn(model.child("proposal_generator"), backbone),
            read_roi_heads(model.child("roi_heads"), backbone),
        ),
    )
    _require_uncut(sizes, config)
    require_served(root)
    return config


def _require_uncut(sizes: LazyNode, config: ModelConfig) -> None:
    """A picture must fit the square that it is padded to."""
    square = config.backbone.square_size
    if square and (config.input.min_size == 0 or config.input.max_size > square):
        sizes.conflict("max_size", f"must be at most {square}, the side of the network's square")
