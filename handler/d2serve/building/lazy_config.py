"""Convert Detectron2's Python configs (`detectron2.config.LazyConfig`) to YAML."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from d2serve.building.lazy_model import INPUT_KEY
from d2serve.building.lazy_yaml import MODEL_KEY, TARGET_KEY, read_lazy_config
from d2serve.detector.detectron2.model import package_version
from d2serve.errors import ConfigError, RuntimeUnavailableError

DATASETS_KEY = "datasets"
# Detectron2's own configs resize to these sizes by default.
DEFAULT_MIN_SIZE, DEFAULT_MAX_SIZE = 800, 1333
UNLIMITED = 2**31 - 1
# Only training on LVIS uses them, and they read the dataset.
FEDERATED_LOSS = {"use_fed_loss", "get_fed_loss_cls_weights"}
# Returns the plain value at a dotted path, None if the path does not exist.
Select = Callable[[str], Any]


@contextmanager
def as_yaml(config: Path) -> Iterator[Path]:
    """Yield a YAML config as it is; run a Python config and yield a temporary YAML file.

    Raises:
        ConfigError: the config is Python and the package is missing; else see `save_lazy_config`.
    """
    if config.suffix != ".py":
        yield config
        return
    if not config.is_file():
        raise ConfigError(f"config {config} does not exist")
    try:
        package_version()
    except RuntimeUnavailableError as error:
        raise ConfigError(
            f"config {config.name} is Python, which only the detectron2 package can read; use the "
            f"config.yaml that training wrote to its output folder instead, or: {error}"
        ) from error
    with tempfile.TemporaryDirectory(prefix="d2serve-config-") as folder:
        saved = Path(folder) / "lazy_config.yaml"
        save_lazy_config(config, saved)
        yield saved


def save_lazy_config(source: Path, target: Path) -> None:
    """Write the parts of a lazy config that inference needs as YAML.

    These are the model, the resizing of images and the datasets that name the classes. A Python
    config is run; one that was saved as YAML is loaded by Detectron2's loader.

    Raises:
        ConfigError: the config cannot be run, has no model, resizes by other transforms than
            ResizeShortestEdge, or contains objects that YAML cannot represent.
    """
    from detectron2.config import LazyConfig
    from omegaconf import OmegaConf, SCMode

    config = _load(source)
    # With the options of LazyConfig.save, so that nothing else changes.
    model = OmegaConf.to_container(
        config.model, resolve=False, structured_config_mode=SCMode.INSTANTIATE
    )
    serving = for_serving(lambda path: _to_plain(OmegaConf.select(config, path)))
    kept = {MODEL_KEY: for_inference(model), **serving}
    LazyConfig.save(OmegaConf.create(kept, flags={"allow_objects": True}), str(target))
    # It pickles what YAML cannot represent, and reports that only in the log.
    if not target.exists() or Path(f"{target}.pkl").exists():
        raise ConfigError(
            f"config {source.name} contains objects that YAML cannot represent; use names, numbers "
            "and functools.partial of importable functions instead of lambdas"
        )


def read_saved_config(path: Path) -> dict[str, Any]:
    """Read the model, the resizing and the datasets of a lazy config that was saved as YAML.

    Raises:
        ConfigError: the config cannot be read, or resizes by other transforms than
            ResizeShortestEdge.
    """
    config = read_lazy_config(path)

    def select(dotted: str) -> Any:
        node: Any = config
        for step in dotted.split("."):
            node = node.get(step) if isinstance(node, dict) else None
        return node

    return {MODEL_KEY: config[MODEL_KEY], **for_serving(select)}


def for_serving(select: Select) -> dict[str, Any]:
    """Extract the resizing of images and the datasets that name the classes.

    Raises:
        ConfigError: images are resized by other transforms than ResizeShortestEdge.
    """
    extracted = {key: select(key) for key in (INPUT_KEY, DATASETS_KEY)}
    if extracted[INPUT_KEY]:  # a config that this function has already been applied to
        return {key: value for key, value in extracted.items() if value}
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


def for_inference(node: Any) -> Any:
    """Remove values that only training reads from a model's config in plain containers.

    A lambda that returns a batch norm is replaced by "BN" if inference is the same: kinds such as
    `detectron2.layers.NaiveSyncBatchNorm` differ only in training.
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


def _sizes(augmentations: Any) -> tuple[int, int]:
    """The shorter side to resize to, and the limit of the longer one."""
    where = "dataloader.test.mapper.augmentations"
    if not augmentations:
        return 0, UNLIMITED
    if len(augmentations) > 1 or _name(augmentations[0]) != "ResizeShortestEdge":
        names = ", ".join(_name(each) for each in augmentations)
        raise ConfigError(f"{where}: {names} (supported: only ResizeShortestEdge)")
    [resize] = augmentations
    lengths = resize["short_edge_length"]
    lengths = {lengths} if isinstance(lengths, int) else set(lengths)
    if len(lengths) > 1:
        raise ConfigError(
            f"{where}: short_edge_length is drawn from {sorted(lengths)} (supported: only one)"
        )
    return lengths.pop(), min(resize.get("max_size", UNLIMITED), UNLIMITED)


def _name(augmentation: Any) -> str:
    target = augmentation.get(TARGET_KEY, "")
    return str(getattr(target, "__name__", target)).rpartition(".")[2]


def _makes_batch_norms(value: Any) -> bool:
    if not callable(value) or "<lambda>" not in getattr(value, "__qualname__", ""):
        return False
    norm = _make_norm(value)
    default = _BatchNorm(1)
    return isinstance(norm, _BatchNorm) and (norm.eps, norm.affine) == (default.eps, default.affine)


def _make_norm(factory: Callable[[int], Any]) -> Any:
    try:
        return factory(1)
    except Exception as error:  # the user's code
        raise ConfigError(
            f"a norm of the config cannot be made for one channel: {error}"
        ) from error


def _load(source: Path) -> Any:
    from detectron2.config import LazyConfig

    try:
        config = LazyConfig.load(str(source))
    except Exception as error:  # the user's code
        raise ConfigError(
            f"config {source.name} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if MODEL_KEY not in config:
        raise ConfigError(f"config {source.name} has no `model`; a lazy config defines it")
    return config


def _to_plain(node: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
