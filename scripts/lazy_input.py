"""What a lazy config says beside its model, as far as serving needs it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from handler.rcnn.config.lazy.model import INPUT_KEY
from handler.rcnn.lazy_yaml import MODEL_KEY, TARGET_KEY, read_lazy_config
from handler.rcnn.yaml_config import ConfigError

DATASETS_KEY = "datasets"
# What Detectron2's own configs resize to where a config does not say.
DEFAULT_MIN_SIZE, DEFAULT_MAX_SIZE = 800, 1333
UNLIMITED = 2**31 - 1

# The plain value at a dotted path, None where there is none.
Select = Callable[[str], Any]


def read_saved_config(path: Path) -> dict[str, Any]:
    """The model of a lazy config that was saved as YAML, and `for_serving` what it says beside.

    Raises:
        ConfigError: it cannot be read, or resizes otherwise than by ResizeShortestEdge.
    """
    config = read_lazy_config(path)

    def select(dotted: str) -> Any:
        node: Any = config
        for step in dotted.split("."):
            node = node.get(step) if isinstance(node, dict) else None
        return node

    return {MODEL_KEY: config[MODEL_KEY], **for_serving(select)}


def for_serving(select: Select) -> dict[str, Any]:
    """How pictures are resized, and the datasets that name the classes.

    Raises:
        ConfigError: it resizes otherwise than by ResizeShortestEdge.
    """
    said = {key: select(key) for key in (INPUT_KEY, DATASETS_KEY)}
    if said[INPUT_KEY]:  # what this function said once
        return {key: value for key, value in said.items() if value}
    mapper = select("dataloader.test.mapper") or {}
    min_size, max_size = (
        _sizes(mapper.get("augmentations")) if mapper else (DEFAULT_MIN_SIZE, DEFAULT_MAX_SIZE)
    )
    return {
        INPUT_KEY: {
            "channel_order": mapper.get("image_format") or select("model.input_format") or "BGR",
            "min_size": min_size,
            "max_size": max_size,
        },
        DATASETS_KEY: {
            "TEST": select("dataloader.test.dataset.names") or [],
            "TRAIN": select("dataloader.train.dataset.names") or [],
        },
    }


def _sizes(augmentations: Any) -> tuple[int, int]:
    if not augmentations:
        return 0, UNLIMITED
    if len(augmentations) > 1 or _name(augmentations[0]) != "ResizeShortestEdge":
        names = ", ".join(_name(each) for each in augmentations)
        raise ConfigError(
            f"dataloader.test.mapper.augmentations: {names} (supported: only ResizeShortestEdge)"
        )
    [resize] = augmentations
    lengths = resize["short_edge_length"]
    lengths = {lengths} if isinstance(lengths, int) else set(lengths)
    if len(lengths) > 1:
        raise ConfigError(
            f"dataloader.test.mapper.augmentations: short_edge_length is drawn from "
            f"{sorted(lengths)} (supported: only one)"
        )
    return lengths.pop(), min(resize.get("max_size", UNLIMITED), UNLIMITED)


def _name(augmentation: Any) -> str:
    target = augmentation.get(TARGET_KEY, "")
    return str(getattr(target, "__name__", target)).rpartition(".")[2]
