"""Small models of the kinds that only the upstream package serves, with weights of their own."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from d2serve.building.lazy_config import save_lazy_config
from d2serve.building.packing import write_yaml
from d2serve.building.yaml_config import read_yaml_config
from d2serve.detections import Picture
from d2serve.detector.detectron2.model import LAZY_CONFIG_FILE, Resizing, build_model
from d2serve.detector.native import CONFIG_FILE
from tests.goldens.seeded_weights import seeded_weights

CONFIGS = Path(__file__).parent / "upstream_configs"

upstream_marks = [
    pytest.mark.upstream,
    pytest.mark.skipif(
        find_spec("detectron2") is None, reason="the upstream detectron2 package is not installed"
    ),
    # Detectron2's own habits.
    pytest.mark.filterwarnings("ignore"),
]


def write_checkpoint(config: Path, path: Path) -> None:
    """A checkpoint as Detectron2's trainer writes it, weights drawn from the parameters' names."""
    folder = path.parent / "config only"
    folder.mkdir()
    if config.suffix == ".py":
        save_lazy_config(config, folder / LAZY_CONFIG_FILE)
    else:
        write_yaml(folder / CONFIG_FILE, read_yaml_config(config))
    model, _ = build_model(folder, torch.device("cpu"))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    weights = {name: torch.from_numpy(np.asarray(a)) for name, a in seeded_weights(shapes).items()}
    torch.save({"model": weights, "iteration": 9}, path)


def answer_of(model: Any, resizing: Resizing, picture: Picture) -> dict[str, Any]:
    """What the model's own forward says, called as `DefaultPredictor` does."""
    from detectron2.data.transforms import ResizeShortestEdge

    ordered = picture[:, :, ::-1] if resizing.channel_order == "BGR" else picture
    ordered = np.ascontiguousarray(ordered)
    resize = ResizeShortestEdge([resizing.min_size] * 2, resizing.max_size)
    resized = resize.get_transform(ordered).apply_image(ordered)
    image = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
    height, width = picture.shape[:2]
    with torch.no_grad():
        answer: dict[str, Any] = model([{"image": image, "height": height, "width": width}])[0]
    return answer
