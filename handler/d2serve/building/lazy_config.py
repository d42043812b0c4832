"""Detectron2's Python configs (`detectron2.config.LazyConfig`) as YAML."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from d2serve.building.lazy_model import INPUT_KEY
from d2serve.building.lazy_yaml import MODEL_KEY, TARGET_KEY, read_lazy_config
from d2serve.building.yaml_config import ConfigError
from d2serve.detector.detectron2.model import LAZY_CONFIG_FILE, PackageError, package_version

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


# What the box predictors of LVIS's models are trained with alone; it asks for the dataset.
FEDERATED_LOSS = {"use_fed_loss", "get_fed_loss_cls_weights"}


@contextmanager
def as_yaml(config: Path) -> Iterator[Path]:
    """The config itself, or while it lasts the YAML of a Python one, which is run.

    Raises:
        ConfigError: it is Python, and the package that it is written for is missing; else see
            `save_lazy_config`.
    """
    if config.suffix != ".py":
        yield config
        return
    if not config.is_file():
        raise ConfigError(f"config {config} does not exist")
    try:
        package_version()
    except PackageError as error:
        raise ConfigError(
            f"config {config.name} is Python, which only the detectron2 package can read; give the "
            f"config.yaml that training wrote into its output folder instead, or: {error}"
        ) from error
    with tempfile.TemporaryDirectory(prefix="d2serve-config-") as folder:
        saved = Path(folder) / LAZY_CONFIG_FILE
        save_lazy_config(config, saved)
        yield saved


def save_lazy_config(source: Path, target: Path) -> None:
    """Runs a Python config, or loads one that was saved as YAML as Detectron2 does, and writes its
    model, how pictures are resized and the datasets that name the classes, as YAML.

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
    beside = for_serving(lambda path: _plain(OmegaConf.select(config, path)))
    kept = {MODEL_KEY: for_inference(model), **beside}
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


def _plain(node: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
