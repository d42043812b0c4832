"""Models and images whose upstream results are stored as goldens."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from d2serve.building.checkpoint import read_checkpoint
from d2serve.building.checkpoint_loading import build_from_checkpoint
from d2serve.building.config import load_config, parse_config, read_config
from d2serve.building.config_keys import KEYS
from d2serve.building.config_values import ConfigValues
from d2serve.building.extensions import known_keys
from d2serve.building.lazy_yaml import is_lazy_config
from d2serve.model.config import ModelConfig
from d2serve.model.meta_arch import build_network
from d2serve.model.network import Network
from d2serve.model.weights import Weights
from tests.goldens.seeded_weights import seeded_weights

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = Path(__file__).parent / "configs"
VARIANT_CONFIGS = CONFIGS / "variants"
RESULTS = Path(__file__).parent / "answers"
SHAPES = REPOSITORY / "models" / "shapes"
SAMPLES = sorted((SHAPES / "samples").iterdir())


@dataclass(frozen=True)
class GoldenModel:
    """A config with a checkpoint, or (None) with weights seeded by the parameters' names.

    `augment`: whether the network runs the versions of an image that TEST.AUG describes.
    """

    name: str
    config: Path
    checkpoint: Path | None
    images: tuple[Path, ...]
    augment: bool = False

    @property
    def is_in_package(self) -> bool:
        """Return whether the detectron2 package can build the network, without other projects."""
        if is_lazy_config(self.config):
            return True
        return known_keys(ConfigValues(read_config(self.config)).given).keys == KEYS

    def build(self) -> Network:
        """Build d2serve's network on the CPU."""
        config = parse_config(read_config(self.config), augment=self.augment)
        return build_from_checkpoint(config, self.weights(), torch.device("cpu"))

    def weights(self) -> Weights:
        """The weights of the checkpoint, or seeded ones."""
        if self.checkpoint is not None:
            return read_checkpoint(self.checkpoint)
        return _seeded(load_config(self.config))

    def result_path(self, image: Path) -> Path:
        """Path of upstream's result for an image."""
        return RESULTS / f"{self.name}-{image.stem}.json"

    def pixels(self, image: Path) -> npt.NDArray[np.uint8]:
        """Read an image as UInt8[H, W, 3] RGB, or with a fourth channel if the network has four."""
        rgb = np.array(Image.open(image).convert("RGB"))
        if len(load_config(self.config).input.pixel_mean) < 4:
            return rgb
        fourth = 255 - rgb.max(axis=2, keepdims=True) // 2
        return np.concatenate((rgb, fourth), axis=2)


def _seeded(config: ModelConfig) -> Weights:
    state = build_network(config).state_dict()
    arrays = seeded_weights({name: tuple(tensor.shape) for name, tensor in state.items()})
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _tiny(name: str) -> GoldenModel:
    # With random weights, one landscape and one portrait image suffice.
    return GoldenModel(name, CONFIGS / f"{name}.yaml", None, (SAMPLES[1], SAMPLES[3]))


TRAINED = GoldenModel("shapes", SHAPES / "config.yaml", SHAPES / "model_final.pth", tuple(SAMPLES))
TINY = [
    _tiny(config.stem) for config in sorted(CONFIGS.glob("*.yaml")) if "base" not in config.stem
]
MODELS = [TRAINED, *TINY]
# Their surfaces are stored beside the usual results, see `surfaces.py`.
DENSEPOSE = [
    GoldenModel(f"densepose/{config.stem}", config, None, (SAMPLES[1],))
    for config in sorted((CONFIGS / "densepose").glob("*.yaml"))
]
# Values of single keys that Detectron2 accepts besides those of its own configs.
VARIANTS = [
    GoldenModel(f"variants/{config.stem}", config, None, (SAMPLES[1],))
    for config in sorted(VARIANT_CONFIGS.glob("*.yaml"))
]
# Test-time augmentation.
AUGMENTED = [
    GoldenModel(
        f"augmented/{config.stem}",
        config,
        TRAINED.checkpoint if config.stem == TRAINED.name else None,
        (SAMPLES[3],),
        augment=True,
    )
    for config in sorted((CONFIGS / "augmented").glob("*.yaml"))
]
