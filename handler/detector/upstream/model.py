"""A folder's config and weights -> the package's own network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from handler.detector.native import CONFIG_FILE
from handler.detector.upstream.config import read_cfg
from handler.detector.upstream.package import package_version
from handler.rcnn.checkpoint import CheckpointError, is_derived
from handler.rcnn.yaml_config import ConfigError

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
