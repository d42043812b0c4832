"""How the package pads a picture."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from handler.detector.interface import Size
from handler.detector.upstream.model import Resizing
from handler.rcnn.yaml_config import ConfigError


def padding_of(model: Any, resizing: Resizing) -> Callable[[Size], Size]:
    """How the model pads a picture of a size when it runs alone.

    Raises:
        ConfigError: pictures would be cut, because they may be larger than the network's square.
    """
    divisibility = getattr(model, "size_divisibility", 0)  # Panoptic-DeepLab's own
    constraints: Mapping[str, int] = {}
    if divisibility <= 0:
        divisibility = model.backbone.size_divisibility
        constraints = model.backbone.padding_constraints
    square = constraints.get("square_size", 0)
    if square and (resizing.min_size == 0 or resizing.max_size > square):
        raise ConfigError(
            f"pictures may be larger than the network's square of {square} px; "
            f"give ResizeShortestEdge a max_size of {square}"
        )
    return partial(_padded_size, divisibility, constraints)


def _padded_size(divisibility: int, constraints: Mapping[str, int], size_hw: Size) -> Size:
    from detectron2.structures import ImageList

    picture = torch.empty((1, *size_hw), device="meta")
    alone = ImageList.from_tensors([picture], divisibility, padding_constraints=constraints)
    return alone.tensor.shape[-2], alone.tensor.shape[-1]
