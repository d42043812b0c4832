"""Models and images whose upstream results are stored as goldens."""

from dataclasses import dataclass
from pathlib import Path

import torch

from d2serve.building.checkpoint import read_checkpoint
from d2serve.building.checkpoint_loading import build_from_checkpoint
from d2serve.building.config import load_config
from d2serve.model.config import ModelConfig
from d2serve.model.meta_arch import build_network
from d2serve.model.network import Network
from d2serve.model.weights import Weights
from tests.goldens.seeded_weights import seeded_weights

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = Path(__file__).parent / "configs"
RESULTS = Path(__file__).parent / "answers"
SHAPES = REPOSITORY / "models" / "shapes"
SAMPLES = sorted((SHAPES / "samples").iterdir())


@dataclass(frozen=True)
class GoldenModel:
    """A config with a checkpoint, or (None) with weights seeded by the parameters' names."""

    name: str
    config: Path
    checkpoint: Path | None
    images: tuple[Path, ...]

    def build(self) -> Network:
        """Build d2serve's network on the CPU."""
        config = load_config(self.config)
        weights = _seeded(config) if self.checkpoint is None else read_checkpoint(self.checkpoint)
        return build_from_checkpoint(config, weights, torch.device("cpu"))

    def result_path(self, image: Path) -> Path:
        """Path of upstream's result for an image."""
        return RESULTS / f"{self.name}-{image.stem}.json"


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
