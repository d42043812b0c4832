"""Detectron2's Python configs (`detectron2.config.LazyConfig`) as YAML that runs no user's file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from handler.rcnn.yaml_config import ConfigError

# What Detectron2's own configs resize to where a config does not say.
DEFAULT_MIN_SIZE, DEFAULT_MAX_SIZE = 800, 1333
UNLIMITED = 2**31 - 1
# What the box predictors of LVIS's models are trained with alone; it asks for the dataset.
FEDERATED_LOSS = {"use_fed_loss", "get_fed_loss_cls_weights"}


def save_lazy_config(source: Path, target: Path) -> None:
    """Runs a Python config and writes its model, and how pictures are resized, as YAML.

    Raises:
        ConfigError: it cannot be run, has no model, resizes otherwise than by ResizeShortestEdge,
            or holds objects that YAML cannot.
    """
    from detectron2.config import LazyConfig
    from omegaconf import OmegaConf, SCMode

    config = _load(source)
    # As LazyConfig.save itself does, so that nothing else changes.
    model = OmegaConf.to_container(
        config.model, resolve=False, structured_config_mode=SCMode.INSTANTIATE
    )
    kept = {"model": for_inference(model), "input": _input(config)}
    LazyConfig.save(OmegaConf.create(kept, flags={"allow_objects": True}), str(target))
    # It pickles what YAML cannot hold, and says so in the log alone.
    if not target.exists() or Path(f"{target}.pkl").exists():
        raise ConfigError(
            f"config {source.name} holds objects that YAML cannot; "
            "use names, numbers and functools.partial of importable functions instead of lambdas"
        )


def for_inference(node: Any) -> Any:
    """A model's config in plain containers without what only training reads.

    Norms that a lambda makes are batch norms by name, where that gives the same numbers: its
    kinds, such as `detectron2.layers.NaiveSyncBatchNorm`, differ in training alone.
    """
    if isinstance(node, list):
        return [for_inference(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {name: value for name, value in node.items() if name not in FEDERATED_LOSS}
    return {
        name: "BN" if name.endswith("norm") and _makes_batch_norms(value) else for_inference(value)
        for name, value in kept.items()
    }


def _makes_batch_norms(value: Any) -> bool:
    if not callable(value) or "<lambda>" not in getattr(value, "__qualname__", ""):
        return False
    made = _first_of(value)
    usual = _BatchNorm(1)
    return isinstance(made, _BatchNorm) and (made.eps, made.affine) == (usual.eps, usual.affine)


def _first_of(make_norm: Callable[[int], Any]) -> Any:
    try:
        return make_norm(1)
    except Exception as error:  # it is the user's code
        raise ConfigError(
            f"a norm of the config cannot be made for one channel: {error}"
        ) from error


def _load(source: Path) -> Any:
    from detectron2.config import LazyConfig

    try:
        config = LazyConfig.load(str(source))
    except Exception as error:  # it runs the user's code
        raise ConfigError(
            f"config {source.name} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if "model" not in config:
        raise ConfigError(f"config {source.name} has no model")
    return config


def _input(config: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    mapper = OmegaConf.select(config, "dataloader.test.mapper")
    order = mapper.get("image_format") if mapper else None
    min_size, max_size = (
        _sizes(mapper.augmentations) if mapper else (DEFAULT_MIN_SIZE, DEFAULT_MAX_SIZE)
    )
    return {
        "channel_order": order or config.model.get("input_format") or "BGR",
        "min_size": min_size,
        "max_size": max_size,
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
    lengths = resize.short_edge_length
    lengths = {lengths} if isinstance(lengths, int) else set(lengths)
    if len(lengths) > 1:
        raise ConfigError(
            f"dataloader.test.mapper.augmentations: short_edge_length is drawn from "
            f"{sorted(lengths)} (supported: only one)"
        )
    return lengths.pop(), min(resize.get("max_size", UNLIMITED), UNLIMITED)


def _name(augmentation: Any) -> str:
    target = augmentation.get("_target_", "")
    return str(getattr(target, "__name__", target)).rpartition(".")[2]
