"""One picture at a time, as `detectron2.engine.DefaultPredictor` takes it; ships with the peers.

Where the package can be imported it is that class itself. Else it is our own network in its
plain form: not passed through `handler.rcnn.optimise`, on torch's default threads.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from handler.masks.paste import paste_masks
from handler.pictures import Picture
from handler.rcnn.build import build_model
from handler.rcnn.checkpoint import read_checkpoint
from handler.rcnn.config import load_config
from handler.rcnn.image_batch import resize_picture

CONFIG_FILE = "config.yaml"
CHECKPOINT_FILE = "model_final.pth"


@dataclass(frozen=True)
class Prediction:
    """What is in one picture, best first.

    boxes_xyxy: Float32[N, 4] in pixels; scores: Float32[N] in 0..1; classes: Int64[N]; masks:
    Bool[N, H, W] of the picture's pixels.
    """

    boxes_xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    masks: npt.NDArray[np.bool_]

    def as_json(self) -> str:
        """Everything as lists, a mask's pixels as 0 and 1, and no spaces between them.

        A handler that returns the dictionary would leave it to TorchServe, which writes every
        number on a line of its own.
        """
        answer = {
            "boxes": self.boxes_xyxy.tolist(),
            "scores": self.scores.tolist(),
            "classes": self.classes.tolist(),
            "masks": self.masks.astype(np.uint8).tolist(),
        }
        return json.dumps(answer, separators=(",", ":"))


Predictor: TypeAlias = Callable[[Picture], Prediction]


def load_predictor(folder: Path) -> Predictor:
    """The model of a folder with CONFIG_FILE and CHECKPOINT_FILE; takes UInt8[H, W, 3] RGB."""
    return _upstream(folder) if find_spec("detectron2") else _plain(folder)


def _upstream(folder: Path) -> Predictor:
    from detectron2.config import get_cfg
    from detectron2.engine import DefaultPredictor

    cfg = get_cfg()
    cfg.merge_from_file(str(folder / CONFIG_FILE))
    cfg.MODEL.WEIGHTS = str(folder / CHECKPOINT_FILE)
    cfg.MODEL.DEVICE = "cpu"
    predictor = DefaultPredictor(cfg)

    def predict(picture: Picture) -> Prediction:
        # It takes BGR, whatever the model wants.
        found: Any = predictor(picture[:, :, ::-1])["instances"]
        return Prediction(
            found.pred_boxes.tensor.numpy(),
            found.scores.numpy(),
            found.pred_classes.numpy(),
            found.pred_masks.numpy(),
        )

    return predict


def _plain(folder: Path) -> Predictor:
    config = load_config(folder / CONFIG_FILE)
    model = build_model(config, read_checkpoint(folder / CHECKPOINT_FILE), torch.device("cpu"))

    def predict(picture: Picture) -> Prediction:
        size_hw = picture.shape[0], picture.shape[1]
        [found] = model([resize_picture(picture, config.input)], [size_hw])
        instances = found.instances
        assert instances.masks is not None
        boxes = instances.boxes.numpy()
        masks = np.zeros((len(boxes), *size_hw), dtype=np.bool_)
        for mask, region in zip(
            masks, paste_masks(instances.masks.numpy(), boxes, size_hw), strict=True
        ):
            mask[region.window] = region.pixels
        return Prediction(boxes, instances.scores.numpy(), instances.classes.numpy(), masks)

    return predict
