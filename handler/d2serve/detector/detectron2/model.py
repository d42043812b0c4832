"""A folder's config and weights -> the upstream package's own network."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2serve.building.yaml_config import ConfigError
from d2serve.detector.base import Size
from d2serve.detector.native import CONFIG_FILE
from d2serve.errors import CheckpointError
from d2serve.model.weights import is_derived

INSTALL = "pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2.git"


class PackageError(RuntimeError):
    """The `detectron2` package is missing or cannot run here."""


def package_version() -> str:
    """The version of the installed package.

    Raises:
        PackageError: there is none, or it does not load, as when it was built for another torch.
    """
    try:
        import detectron2
        import detectron2.modeling
    except ImportError as error:
        raise PackageError(
            f"this model needs the detectron2 package, which cannot be imported here ({error}); "
            f"install it where the model runs: {INSTALL}"
        ) from error
    return detectron2.__version__


# Projects that come with the package, and what adds their keys to a config.
PROJECTS = {
    "detectron2.projects.point_rend": "add_pointrend_config",
    "detectron2.projects.deeplab": "add_deeplab_config",
    "detectron2.projects.panoptic_deeplab": "add_panoptic_deeplab_config",
}


def read_cfg(path: Path) -> Any:
    """The config among the keys of the package, or else of the first project that has them all.

    A project's keys are not added where they are not needed, because some change defaults.
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
    raise ConfigError("detectron2 does not take this config:\n  " + "\n  ".join(problems))


def _key_sets() -> Iterator[tuple[str, Callable[[Any], None]]]:
    yield "detectron2", lambda cfg: None
    for module, function in PROJECTS.items():
        yield module, partial(_add_project_keys, module, function)


def _add_project_keys(module: str, function: str, cfg: Any) -> None:
    getattr(import_module(module), function)(cfg)


LAZY_CONFIG_FILE = "lazy_config.yaml"
CHANNEL_ORDERS = ("RGB", "BGR")


@dataclass(frozen=True)
class Resizing:
    """How a picture enters the network; sizes in pixels, `min_size` 0 means no resize."""

    channel_order: str
    min_size: int
    max_size: int


def build_model(folder: Path, device: torch.device) -> tuple[Any, Resizing]:
    """The network that a folder's config describes, without weights, ready for inference.

    Raises:
        PackageError: the package cannot be imported.
        ConfigError: the package cannot build it.
    """
    package_version()
    lazy = folder / LAZY_CONFIG_FILE
    try:
        model, resizing = _build_lazy(lazy) if lazy.exists() else _build_yaml(folder / CONFIG_FILE)
    except ConfigError:
        raise
    except Exception as error:  # configs name any code, which raises anything
        raise ConfigError(
            f"detectron2 cannot build this config: {type(error).__name__}: {error}"
        ) from error
    if resizing.channel_order not in CHANNEL_ORDERS:
        raise ConfigError(
            f"the input format is {resizing.channel_order!r} (supported: RGB and BGR)"
        )
    return model.eval().requires_grad_(False).to(device), resizing


def load_weights(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Copies weights into the network; names of older versions are converted by its modules.

    Raises:
        CheckpointError: listing every missing, unexpected and misshaped name.
    """
    try:
        unfit = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not fit the config: {error}") from error
    problems = [
        *(f"missing: {name}" for name in unfit.missing_keys if not is_derived(name)),
        *(f"unexpected: {name}" for name in unfit.unexpected_keys if not is_derived(name)),
    ]
    if problems:
        raise CheckpointError(
            "the checkpoint does not fit the config (was it trained with another one?):\n  "
            + "\n  ".join(problems)
        )


def _build_yaml(path: Path) -> tuple[Any, Resizing]:
    from detectron2.modeling import build_model as build

    cfg = read_cfg(path)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    # It is for training alone, and asks for the dataset.
    cfg.MODEL.ROI_BOX_HEAD.USE_FED_LOSS = False
    resizing = Resizing(cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    return build(cfg), resizing


def _build_lazy(path: Path) -> tuple[Any, Resizing]:
    from detectron2.config import LazyConfig, instantiate

    config = LazyConfig.load(str(path))
    return instantiate(config.model), Resizing(**config.input)


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
