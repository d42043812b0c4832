"""Choose the runtime of a model and write the model folder of an archive for it."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2serve.building.augmentation import OPTION
from d2serve.building.checkpoint_loading import build_from_checkpoint, is_derived
from d2serve.building.config import parse_config
from d2serve.building.ignored_keys import IGNORED_KEYS_FILE, split_ignored
from d2serve.building.lazy_config import DATASETS_KEY, read_saved_config, save_lazy_config
from d2serve.building.lazy_yaml import is_lazy_config, read_lazy_config
from d2serve.building.package_config import for_package
from d2serve.building.packing import write_yaml
from d2serve.building.python_tags import as_text
from d2serve.building.weight_values import check_values
from d2serve.building.yaml_config import read_yaml_config
from d2serve.detector import native
from d2serve.detector.detectron2 import model as upstream
from d2serve.detector.detectron2.detector import limits_of
from d2serve.detector.detectron2.model import DETECTRON2_CONFIG_FILE, package_version
from d2serve.errors import (
    ConfigError,
    RuntimeUnavailableError,
    UnsupportedConfigError,
)
from d2serve.model.augmentation_config import AugmentationConfig
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
    """Properties of a model that its class names and the report of the build depend on.

    Attributes:
        explicit: the keys that its config sets; of a lazy config only the datasets.
        num_classes: number of thing classes.
        num_stuff_classes: number of stuff classes.
        ignored: the keys that were ignored on request, by dotted name.
        augmentation: the versions of an image that the network runs, or None.
    """

    explicit: Mapping[str, Any]
    num_classes: int
    num_stuff_classes: int
    ignored: Mapping[str, Any]
    augmentation: AugmentationConfig | None = None


def choose_runtime(requested: str, config: Path, ignore_keys: Sequence[str] = ()) -> RuntimeChoice:
    """Choose our own network if it supports the config, else the package if it can run it.

    Args:
        requested: one of RUNTIME_CHOICES; any but AUTO is the choice.
        config: a YAML config; see `as_yaml` for Python ones.
        ignore_keys: patterns of keys to ignore; see `split_ignored`.

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
    error = _unsupported(config, ignore_keys)
    if error is None:
        reason = "the config is supported" if requested == AUTO else "requested"
        return RuntimeChoice(NATIVE, reason)
    if requested == NATIVE:
        raise error
    try:
        version = package_version()
    except RuntimeUnavailableError as unavailable:
        if not error.package_may_run:
            raise error from unavailable
        raise ConfigError(
            f"{error}\nOnly the detectron2 package could run it: {unavailable}"
        ) from unavailable
    if not error.package_may_run:
        _try_package(config, ignore_keys, error)
    return RuntimeChoice(
        DETECTRON2, f"version {version}; not possible with native: {_in_one_line(error)}"
    )


def write_model_folder(
    folder: Path,
    config: Path,
    weights: Weights,
    runtime: str,
    ignore_keys: Sequence[str] = (),
    *,
    augment: bool = False,
) -> WrittenModel:
    """Write model.json, weights.pt and detectron2.yaml for a runtime.

    Keys that are ignored on request are recorded in IGNORED_KEYS_FILE.

    Args:
        folder: the archive's model folder.
        config: a YAML config.
        weights: the checkpoint's weights.
        runtime: NATIVE or DETECTRON2.
        ignore_keys: patterns of keys to ignore; see `split_ignored`.
        augment: whether the archive augments images; only for NATIVE.

    Raises:
        ConfigError, CheckpointError: the config is not supported, or the weights do not match it or
            are not finite.
        RuntimeUnavailableError: the runtime cannot be imported.
    """
    check_values(weights)
    if runtime == NATIVE:
        written = _write_native(folder, config, weights, ignore_keys, augment)
    elif augment:
        raise ConfigError(
            f"{OPTION} is for the runtime {NATIVE}, and the model needs {runtime}, which d2serve "
            "runs without test-time augmentation; remove the option"
        )
    else:
        written = _write_detectron2(folder, config, weights, ignore_keys)
    if written.ignored:
        write_yaml(folder / IGNORED_KEYS_FILE, as_text(written.ignored))
    return written


def write_detectron2_config(
    folder: Path, config: Path, ignore_keys: Sequence[str] = ()
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Write model.json and detectron2.yaml for the package; return keys and ignored keys.

    Raises:
        ConfigError: the config cannot be read, or has values that only running code yields.
    """
    target, lazy = folder / DETECTRON2_CONFIG_FILE, is_lazy_config(config)
    upstream.write_config_format(folder, lazy=lazy)
    if lazy:
        _check_nothing_ignored(ignore_keys)
        save_lazy_config(config, target)
        return read_lazy_config(target), {}
    explicit, ignored = split_ignored(read_yaml_config(config), ignore_keys)
    write_yaml(target, for_package(explicit))
    return explicit, ignored


def _write_native(
    folder: Path, config: Path, weights: Weights, ignore_keys: Sequence[str], augment: bool
) -> WrittenModel:
    explicit, ignored = _read(config, ignore_keys)
    model_config = parse_config(explicit, augment=augment)
    model = build_from_checkpoint(model_config, weights, CPU)
    write_model_file(folder, NATIVE, encode_config(model_config))
    write_weights(folder / WEIGHTS_FILE, optimize(model))
    write_yaml(folder / DETECTRON2_CONFIG_FILE, as_text(explicit))
    output = model_config.output
    return WrittenModel(
        _with_datasets(explicit),
        output.num_classes,
        output.num_stuff_classes,
        ignored,
        model_config.augmentation,
    )


def _write_detectron2(
    folder: Path, config: Path, weights: Weights, ignore_keys: Sequence[str]
) -> WrittenModel:
    explicit, ignored = write_detectron2_config(folder, config, ignore_keys)
    model, _ = upstream.build_model(folder, CPU)
    upstream.load_weights(model, _complete(weights, model.state_dict()))
    write_weights(folder / WEIGHTS_FILE, model)
    limits = limits_of(model)
    return WrittenModel(
        _with_datasets(explicit), limits.num_classes, limits.num_stuff_classes, ignored
    )


def _complete(weights: Weights, state: Mapping[str, Tensor]) -> Weights:
    """The weights with the network's own derived entries, and without derived ones it lacks."""
    derived = {name: tensor for name, tensor in state.items() if is_derived(name)}
    kept = {
        name: tensor for name, tensor in weights.items() if name in state or not is_derived(name)
    }
    return derived | kept


def _unsupported(config: Path, ignore_keys: Sequence[str]) -> UnsupportedConfigError | None:
    """The reason why our own network does not support a readable config."""
    explicit, _ = _read(config, ignore_keys)
    try:
        parse_config(explicit)
    except UnsupportedConfigError as error:
        return error
    return None


def _try_package(config: Path, ignore_keys: Sequence[str], error: UnsupportedConfigError) -> None:
    """Build the package's network, without weights.

    Raises:
        UnsupportedConfigError: `error`, if the package cannot build or run it either.
    """
    with tempfile.TemporaryDirectory(prefix="d2serve-config-") as folder:
        try:
            write_detectron2_config(Path(folder), config, ignore_keys)
            model, _ = upstream.build_model(Path(folder), CPU)
        except (ConfigError, RuntimeUnavailableError) as refusal:
            raise error from refusal
    if getattr(model, "proposal_generator", model) is None:  # Fast R-CNN, whose images need boxes
        raise error


def _read(config: Path, ignore_keys: Sequence[str]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The keys of a config, or the model and the input of a lazy one; and the ignored keys."""
    if is_lazy_config(config):
        _check_nothing_ignored(ignore_keys)
        return read_saved_config(config), {}
    return split_ignored(read_yaml_config(config), ignore_keys)


def _check_nothing_ignored(ignore_keys: Sequence[str]) -> None:
    if ignore_keys:
        raise ConfigError(
            f"--ignore-key {ignore_keys[0]!r} is for configs with keys such as MODEL.MASK_ON; this "
            "is a lazy config, whose values are arguments of classes; remove the option"
        )


def _with_datasets(explicit: Mapping[str, Any]) -> Mapping[str, Any]:
    """A lazy config's datasets under the key of the other configs."""
    return {"DATASETS": explicit[DATASETS_KEY]} if DATASETS_KEY in explicit else explicit


def _in_one_line(error: UnsupportedConfigError) -> str:
    """The first unsupported value and the number of further ones."""
    first, *others = error.problems
    more = f" and {len(others)} more" if others else ""
    return f"{UnsupportedConfigError([first])}{more}"
