"""Choose the runtime of a model and write the model folder of an archive for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2serve.building.checkpoint_loading import build_from_checkpoint, is_derived
from d2serve.building.config import parse_config
from d2serve.building.lazy_config import DATASETS_KEY, read_saved_config, save_lazy_config
from d2serve.building.lazy_yaml import is_lazy_config, read_lazy_config
from d2serve.building.packing import write_yaml
from d2serve.building.yaml_config import read_yaml_config
from d2serve.detector import native
from d2serve.detector.detectron2 import model as upstream
from d2serve.detector.detectron2.detector import limits_of
from d2serve.detector.detectron2.model import DETECTRON2_CONFIG_FILE, package_version
from d2serve.errors import ConfigError, MisspelledKeyError, RuntimeUnavailableError
from d2serve.model.optimize import optimize
from d2serve.model.serialization import encode_config, write_model_file
from d2serve.model.weights import WEIGHTS_FILE, Weights, write_weights

NATIVE, DETECTRON2, AUTO = native.RUNTIME, upstream.RUNTIME, "auto"
RUNTIME_CHOICES = (AUTO, NATIVE, DETECTRON2)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class RuntimeChoice:
    """`native` or `detectron2`, and the reason in a few words."""

    runtime: str
    reason: str


@dataclass(frozen=True)
class WrittenModel:
    """Properties of a model that its class names depend on.

    Attributes:
        explicit: the keys that its config sets; of a lazy config only the datasets.
        num_classes: number of thing classes.
        num_stuff_classes: number of stuff classes.
    """

    explicit: Mapping[str, Any]
    num_classes: int
    num_stuff_classes: int


def choose_runtime(requested: str, config: Path) -> RuntimeChoice:
    """Choose our own network if it supports the config, else the package if it is installed.

    Args:
        requested: one of RUNTIME_CHOICES; any but AUTO is the choice.
        config: a YAML config; see `as_yaml` for Python ones.

    Raises:
        ConfigError: the config cannot be read, or the runtimes do not support it; the message lists
            the unsupported values.
        RuntimeUnavailableError: `detectron2` is requested and cannot be imported.
    """
    if not config.is_file():
        raise ConfigError(
            f"config {config} {'is a folder' if config.is_dir() else 'does not exist'}"
        )
    if requested == DETECTRON2:
        return RuntimeChoice(DETECTRON2, f"requested, version {package_version()}")
    error = _unsupported(config)
    if error is None:
        reason = "the config is supported" if requested == AUTO else "requested"
        return RuntimeChoice(NATIVE, reason)
    if requested == NATIVE or isinstance(error, MisspelledKeyError):
        raise error
    try:
        version = package_version()
    except RuntimeUnavailableError as unavailable:
        raise ConfigError(
            f"{error}\nOnly the detectron2 package could run it: {unavailable}"
        ) from unavailable
    return RuntimeChoice(
        DETECTRON2, f"version {version}; not possible with native: {_in_one_line(error)}"
    )


def write_model_folder(folder: Path, config: Path, weights: Weights, runtime: str) -> WrittenModel:
    """Write model.json, weights.pt and detectron2.yaml for a runtime.

    Raises:
        ConfigError, CheckpointError: the config is not supported or the weights do not match it.
        RuntimeUnavailableError: the runtime cannot be imported.
    """
    write = {NATIVE: _write_native, DETECTRON2: _write_detectron2}[runtime]
    return write(folder, config, weights)


def write_detectron2_config(folder: Path, config: Path) -> Mapping[str, Any]:
    """Write model.json and detectron2.yaml for the package; return the keys of the config."""
    target, lazy = folder / DETECTRON2_CONFIG_FILE, is_lazy_config(config)
    upstream.write_config_format(folder, lazy=lazy)
    if lazy:
        save_lazy_config(config, target)
        return read_lazy_config(target)
    explicit = read_yaml_config(config)
    write_yaml(target, explicit)
    return explicit


def _write_native(folder: Path, config: Path, weights: Weights) -> WrittenModel:
    explicit = _read(config)
    model_config = parse_config(explicit)
    model = build_from_checkpoint(model_config, weights, CPU)
    write_model_file(folder, NATIVE, encode_config(model_config))
    write_weights(folder / WEIGHTS_FILE, optimize(model))
    write_yaml(folder / DETECTRON2_CONFIG_FILE, explicit)
    output = model_config.output
    return WrittenModel(_with_datasets(explicit), output.num_classes, output.num_stuff_classes)


def _write_detectron2(folder: Path, config: Path, weights: Weights) -> WrittenModel:
    explicit = write_detectron2_config(folder, config)
    model, _ = upstream.build_model(folder, CPU)
    upstream.load_weights(model, _complete(weights, model.state_dict()))
    write_weights(folder / WEIGHTS_FILE, model)
    limits = limits_of(model)
    return WrittenModel(_with_datasets(explicit), limits.num_classes, limits.num_stuff_classes)


def _complete(weights: Weights, state: Mapping[str, Tensor]) -> Weights:
    """The weights with the network's own derived entries, and without derived ones it lacks."""
    derived = {name: tensor for name, tensor in state.items() if is_derived(name)}
    kept = {
        name: tensor for name, tensor in weights.items() if name in state or not is_derived(name)
    }
    return derived | kept


def _unsupported(config: Path) -> ConfigError | None:
    """The reason why our own network does not support a readable config."""
    explicit = _read(config)
    try:
        parse_config(explicit)
    except ConfigError as error:
        return error
    return None


def _read(config: Path) -> dict[str, Any]:
    """The keys of a config, or the model and the input of a lazy one."""
    return read_saved_config(config) if is_lazy_config(config) else read_yaml_config(config)


def _with_datasets(explicit: Mapping[str, Any]) -> Mapping[str, Any]:
    """A lazy config's datasets under the key of the other configs."""
    return {"DATASETS": explicit[DATASETS_KEY]} if DATASETS_KEY in explicit else explicit


def _in_one_line(error: ConfigError) -> str:
    """The first unsupported value and the number of further ones."""
    head, *values = (line.strip() for line in str(error).splitlines())
    more = f" and {len(values) - 1} more" if len(values) > 1 else ""
    return " ".join([head, *values[:1]]) + more
