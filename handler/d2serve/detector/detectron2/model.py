"""Build a network of the upstream `detectron2` package from an archive's model folder."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2serve.detector.base import Size
from d2serve.errors import CheckpointError, ConfigError, RuntimeUnavailableError
from d2serve.model.config import GREY
from d2serve.model.serialization import MODEL_FILE, read_model_file, write_model_file

RUNTIME = "detectron2"
# The package reads it with its own readers; for our own network it is only documentation.
DETECTRON2_CONFIG_FILE = "detectron2.yaml"
KEYED, LAZY = "keyed", "lazy"
CHANNEL_ORDERS = ("RGB", "BGR", "RGBA", GREY)
INSTALL = "pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2.git"
# Projects that come with the package, and the function that adds their keys to a config.
PROJECTS = {
    "detectron2.projects.point_rend": "add_pointrend_config",
    "detectron2.projects.deeplab": "add_deeplab_config",
    "detectron2.projects.panoptic_deeplab": "add_panoptic_deeplab_config",
}


@dataclass(frozen=True)
class Resizing:
    """Preprocessing of an image; sizes in pixels, `min_size` 0 means that it is not resized."""

    channel_order: str
    min_size: int
    max_size: int
    channels: int = 3

    @property
    def is_grey(self) -> bool:
        """Return whether images are converted to grey."""
        return self.channel_order == GREY or self.channels == 1


def package_version() -> str:
    """Return the version of the installed package.

    Raises:
        RuntimeUnavailableError: the package is missing, or was built for another torch.
    """
    try:
        import detectron2
        import detectron2.modeling
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"this model needs the detectron2 package, which cannot be imported ({error}); "
            f"install it where the model runs: {INSTALL}"
        ) from error
    return detectron2.__version__


def write_config_format(folder: Path, *, lazy: bool) -> None:
    """Record in `model.json` which of the package's readers `detectron2.yaml` is for."""
    write_model_file(folder, RUNTIME, {"format": LAZY if lazy else KEYED})


def build_model(folder: Path, device: torch.device) -> tuple[Any, Resizing]:
    """Build the network of a model folder without weights, ready for inference.

    Raises:
        RuntimeUnavailableError: the package cannot be imported.
        ConfigError: the package cannot build the config.
    """
    package_version()
    config_format = read_model_file(folder, RUNTIME).get("format")
    if config_format not in (KEYED, LAZY):
        raise ConfigError(
            f"{MODEL_FILE}: config.format is {config_format!r}, expected {KEYED!r} or {LAZY!r}; "
            "build the archive again"
        )
    build = _build_lazy if config_format == LAZY else _build_keyed
    try:
        model, resizing = build(folder / DETECTRON2_CONFIG_FILE)
    except ConfigError:
        raise
    except Exception as error:  # configs may call any code
        raise ConfigError(
            f"detectron2 cannot build this config: {type(error).__name__}: {error}"
        ) from error
    if resizing.channel_order not in CHANNEL_ORDERS:
        raise ConfigError(
            f"the input format is {resizing.channel_order!r}, "
            f"supported are {', '.join(CHANNEL_ORDERS)}"
        )
    return model.eval().requires_grad_(False).to(device), _with_channels(resizing, model)


def _with_channels(resizing: Resizing, model: Any) -> Resizing:
    channels = model.pixel_mean.numel()
    if channels not in (1, 3, 4):
        raise ConfigError(f"the input has {channels} channels, supported are 1, 3 and 4")
    return replace(resizing, channels=channels)


def load_weights(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into the network; its modules convert names of older versions.

    Raises:
        CheckpointError: the message lists all missing, unexpected and misshaped names.
    """
    try:
        mismatch = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not match the config: {error}") from error
    problems = [
        *(f"missing: {name}" for name in mismatch.missing_keys),
        *(f"unexpected: {name}" for name in mismatch.unexpected_keys),
    ]
    if problems:
        raise CheckpointError(
            "the checkpoint does not match the config; use the config of its training:\n  "
            + "\n  ".join(problems)
        )


def padding_of(model: Any, resizing: Resizing) -> Callable[[Size], Size]:
    """Return the function from an image's (height, width) to its padded size in the network.

    Raises:
        ConfigError: images can be larger than the network's square, which would crop them.
    """
    divisibility = getattr(model, "size_divisibility", 0)  # Panoptic-DeepLab's own
    constraints: Mapping[str, int] = {}
    if divisibility <= 0:
        divisibility = model.backbone.size_divisibility
        constraints = model.backbone.padding_constraints
    square = constraints.get("square_size", 0)
    if square and (resizing.min_size == 0 or resizing.max_size > square):
        raise ConfigError(
            f"images may be larger than the network's square of {square} px; "
            f"give ResizeShortestEdge a max_size of {square}"
        )
    return partial(_padded_size, divisibility, constraints)


def _padded_size(divisibility: int, constraints: Mapping[str, int], size_hw: Size) -> Size:
    from detectron2.structures import ImageList

    image = torch.empty((1, *size_hw), device="meta")
    batch = ImageList.from_tensors([image], divisibility, padding_constraints=constraints)
    return batch.tensor.shape[-2], batch.tensor.shape[-1]


def _build_keyed(path: Path) -> tuple[Any, Resizing]:
    from detectron2.modeling import build_model as build

    cfg = _read_cfg(path)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    # Only training uses it, and it reads the dataset.
    cfg.MODEL.ROI_BOX_HEAD.USE_FED_LOSS = False
    resizing = Resizing(cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    return build(cfg), resizing


def _build_lazy(path: Path) -> tuple[Any, Resizing]:
    from detectron2.config import LazyConfig, instantiate

    config = LazyConfig.load(str(path))
    return instantiate(config.model), Resizing(**config.input)


def _read_cfg(path: Path) -> Any:
    """Read a config with the package's keys, else with those of the first project that has all.

    A project's keys are added only if needed, because some of them change defaults.
    """
    from detectron2.config import get_cfg

    problems = []
    for name, add_keys in _key_sets():
        cfg = get_cfg()
        try:
            add_keys(cfg)
            cfg.merge_from_file(str(path))
        except (ImportError, KeyError, ValueError, AssertionError) as error:
            problems.append(f"{name}: {error.args[0] if error.args else type(error).__name__}")
        else:
            return cfg
    raise ConfigError("detectron2 does not accept this config:\n  " + "\n  ".join(problems))


def _key_sets() -> Iterator[tuple[str, Callable[[Any], None]]]:
    yield "detectron2", lambda cfg: None
    for module, function in PROJECTS.items():
        yield module, partial(_add_project_keys, module, function)


def _add_project_keys(module: str, function: str, cfg: Any) -> None:
    getattr(import_module(module), function)(cfg)
