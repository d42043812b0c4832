"""Small models that only the upstream package serves, with seeded weights."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from d2serve.building.lazy_config import as_yaml
from d2serve.building.runtimes import write_detectron2_config
from d2serve.detections import RGBImage
from d2serve.detector.detectron2.model import Resizing, build_model
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
    with as_yaml(config) as readable:
        write_detectron2_config(folder, readable)
    model, _ = build_model(folder, torch.device("cpu"))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    weights = {name: torch.from_numpy(np.asarray(a)) for name, a in seeded_weights(shapes).items()}
    torch.save({"model": weights, "iteration": 9}, path)


def upstream_outputs(model: Any, resizing: Resizing, image: RGBImage) -> dict[str, Any]:
    """Run the model's own forward pass as `DefaultPredictor` does."""
    from detectron2.data.transforms import ResizeShortestEdge

    ordered = image[:, :, ::-1] if resizing.channel_order == "BGR" else image
    ordered = np.ascontiguousarray(ordered)
    resize = ResizeShortestEdge([resizing.min_size] * 2, resizing.max_size)
    resized = resize.get_transform(ordered).apply_image(ordered)
    tensor = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
    height, width = image.shape[:2]
    with torch.no_grad():
        answer: dict[str, Any] = model([{"image": tensor, "height": height, "width": width}])[0]
    return answer
