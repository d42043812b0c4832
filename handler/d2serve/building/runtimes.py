"""Choose the runtime of a model: our own network or the upstream `detectron2` package."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from d2serve.building.config import parse_config
from d2serve.building.config_values import MisspeltKeyError
from d2serve.building.lazy_config import DATASETS_KEY, read_saved_config, save_lazy_config
from d2serve.building.lazy_yaml import is_lazy_config, read_lazy_config
from d2serve.building.packing import write_yaml
from d2serve.building.yaml_config import ConfigError, read_yaml_config
from d2serve.detector.detectron2.detector import limits_of
from d2serve.detector.detectron2.model import (
    LAZY_CONFIG_FILE,
    PackageError,
    load_weights,
    package_version,
)
from d2serve.detector.detectron2.model import build_model as build_upstream
from d2serve.detector.native import CONFIG_FILE, WEIGHTS_FILE
from d2serve.model.meta_arch import build_model as build_native
from d2serve.model.optimise import optimise
from d2serve.model.weights import Weights, write_weights
from d2serve.settings import RUNTIMES

AUTO = "auto"
WANTED = (AUTO, *RUNTIMES)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Choice:
    """One of RUNTIMES, and in a few words why."""

    runtime: str
    reason: str


def choose_runtime(wanted: str, config: Path) -> Choice:
    """Our own network where it knows the config, else the package where that is installed.

    Args:
        wanted: one of WANTED; other than AUTO it is the choice.
        config: a YAML config; see `as_yaml` for Python ones.

    Raises:
        ConfigError: the config cannot be read, or `native` is wanted and does not support it, or
            nothing here does; the message lists what is not supported, and how to get on.
        PackageError: `detectron2` is wanted and cannot be imported.
    """
    if not config.is_file():
        raise ConfigError(f"config {config} does not exist")
    if wanted == "detectron2":
        return Choice("detectron2", f"asked for, {package_version()}")
    refusal = _refusal(config)
    if refusal is None:
        return Choice("native", "the config is supported" if wanted == AUTO else "asked for")
    if wanted == "native" or isinstance(refusal, MisspeltKeyError):
        raise refusal
    try:
        version = package_version()
    except PackageError as error:
        raise ConfigError(
            f"{refusal}\nOnly the detectron2 package could serve it: {error}"
        ) from error
    return Choice("detectron2", f"{version}, as our own network says: {_in_one_line(refusal)}")


@dataclass(frozen=True)
class WrittenModel:
    """What the names of a model's classes depend on.

    Attributes:
        explicit: what its YAML config sets explicitly; of a lazy one the datasets alone.
        num_classes: how many classes of things it tells apart.
        num_stuff_classes: how many classes of stuff.
    """

    explicit: Mapping[str, Any]
    num_classes: int
    num_stuff_classes: int


def write_network(folder: Path, config: Path, weights: Weights, runtime: str) -> WrittenModel:
    """Writes config and weights for a runtime.

    Raises:
        ConfigError, CheckpointError, PackageError: the model's files are not as they must be.
    """
    writers = {"native": _write_native, "detectron2": _write_upstream}
    return writers[runtime](folder, config, weights)


def _write_native(folder: Path, config: Path, weights: Weights) -> WrittenModel:
    explicit = _read(config)
    model_config = parse_config(explicit)
    model = build_native(model_config, weights, CPU)
    write_weights(folder / WEIGHTS_FILE, optimise(model))
    write_yaml(folder / CONFIG_FILE, explicit)
    output = model_config.output
    return WrittenModel(_naming(explicit), output.num_classes, output.num_stuff_classes)


def _write_upstream(folder: Path, config: Path, weights: Weights) -> WrittenModel:
    if is_lazy_config(config):
        save_lazy_config(config, folder / LAZY_CONFIG_FILE)
        explicit = read_lazy_config(folder / LAZY_CONFIG_FILE)
    else:
        explicit = read_yaml_config(config)
        write_yaml(folder / CONFIG_FILE, explicit)
    model, _ = build_upstream(folder, CPU)
    load_weights(model, weights)
    write_weights(folder / WEIGHTS_FILE, model)
    limits = limits_of(model)
    return WrittenModel(_naming(explicit), limits.num_classes, limits.num_stuff_classes)


def _refusal(config: Path) -> ConfigError | None:
    """Why our own network does not run a config that can be read."""
    explicit = _read(config)
    try:
        parse_config(explicit)
    except ConfigError as error:
        return error
    return None


def _read(config: Path) -> dict[str, Any]:
    """What our own network reads: a config of keys, or the model and the input of a lazy one."""
    return read_saved_config(config) if is_lazy_config(config) else read_yaml_config(config)


def _naming(explicit: Mapping[str, Any]) -> Mapping[str, Any]:
    """A lazy config's datasets where other configs have them."""
    return {"DATASETS": explicit[DATASETS_KEY]} if DATASETS_KEY in explicit else explicit


def _in_one_line(refusal: ConfigError) -> str:
    """The first thing that is not supported, and how many more there are."""
    head, *keys = (line.strip() for line in str(refusal).splitlines())
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return " ".join([head, *keys[:1]]) + more
