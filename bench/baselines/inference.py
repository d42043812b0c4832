"""Baselines as users of Detectron2 write them: a TorchServe handler and a script for AWS's toolkit.

Ships with both baselines. One image at a time, masks as lists. The network is
`detectron2.engine.DefaultPredictor` where the package is installed, else that of d2serve in its
plain form: without its optimisations and on torch's default threads.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

CONFIG_FILE, CHECKPOINT_FILE = "config.yaml", "model_final.pth"
# UInt8[H, W, 3] RGB -> boxes_xyxy Float32[N, 4], scores Float32[N], classes Int64[N] and masks
# Bool[N, H, W], by name.
Predictor = Callable[[Any], dict[str, Any]]
LOADED: dict[str, Predictor] = {}


def handle(data: Sequence[Mapping[str, Any]] | None, context: Any) -> list[str]:
    """Entry point of TorchServe, which calls it without data to load the model."""
    if data is None:
        LOADED["model"] = model_fn(context.system_properties["model_dir"])
        return []
    images = (input_fn(row.get("data") or row.get("body") or b"", "image/") for row in data)
    return [output_fn(predict_fn(image, LOADED["model"]), "") for image in images]


def model_fn(model_dir: str) -> Predictor:
    """Load the model of a folder with CONFIG_FILE and CHECKPOINT_FILE."""
    return (upstream if find_spec("detectron2") else plain)(Path(model_dir))


def input_fn(body: bytes, content_type: str) -> Any:
    """Decode an image to UInt8[H, W, 3] RGB; ValueError for another Content-Type."""
    if not content_type.startswith("image/"):
        raise ValueError(f"Content-Type: received {content_type}, expected image/*")
    return np.array(Image.open(io.BytesIO(body)).convert("RGB"))


def predict_fn(image: Any, predict: Predictor) -> dict[str, Any]:
    """Run the network on one image."""
    return predict(image)


def output_fn(prediction: Mapping[str, Any], _accept: str) -> str:
    """Encode everything as lists, a mask's pixels as 0 and 1, without spaces: TorchServe would
    write each number of a dictionary on a line of its own."""
    content = {**prediction, "masks": prediction["masks"].astype(np.uint8)}
    lists = {name: each.tolist() for name, each in content.items()}
    return json.dumps(lists, separators=(",", ":"))


def upstream(folder: Path) -> Predictor:
    """Detectron2's DefaultPredictor on the CPU."""
    from detectron2.config import get_cfg
    from detectron2.engine import DefaultPredictor

    cfg = get_cfg()
    cfg.merge_from_file(str(folder / CONFIG_FILE))
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = str(folder / CHECKPOINT_FILE), "cpu"
    predictor = DefaultPredictor(cfg)

    def predict(image: Any) -> dict[str, Any]:
        # It takes BGR for every model.
        found: Any = predictor(image[:, :, ::-1])["instances"]
        tensors = {"boxes": found.pred_boxes.tensor, "scores": found.scores}
        tensors |= {"classes": found.pred_classes, "masks": found.pred_masks}
        return {name: each.numpy() for name, each in tensors.items()}

    return predict


def plain(folder: Path) -> Predictor:
    """The network of d2serve, without its optimisations."""
    from d2serve.building.checkpoint import read_checkpoint
    from d2serve.building.checkpoint_loading import build_from_checkpoint
    from d2serve.building.config import load_config
    from d2serve.masks.paste import paste_masks
    from d2serve.model.preprocessing import resize_image

    config, weights = load_config(folder / CONFIG_FILE), read_checkpoint(folder / CHECKPOINT_FILE)
    model = build_from_checkpoint(config, weights, torch.device("cpu"))

    def predict(image: Any) -> dict[str, Any]:
        size_hw = image.shape[0], image.shape[1]
        [found] = model([resize_image(image, config.input)], [size_hw])
        instances = found.instances
        assert instances.masks is not None
        tensors = {"boxes": instances.boxes, "scores": instances.scores}
        arrays = {name: each.numpy() for name, each in tensors.items()}
        masks = np.zeros((len(instances.boxes), *size_hw), dtype=np.bool_)
        regions = paste_masks(instances.masks.numpy(), arrays["boxes"], size_hw)
        for mask, region in zip(masks, regions, strict=True):
            mask[region.window] = region.pixels
        return {**arrays, "classes": instances.classes.numpy(), "masks": masks}

    return predict
