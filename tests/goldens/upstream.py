"""Runs the upstream `detectron2` package, the truth that our network is held against."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.goldens.seeded_weights import seeded_weights


@dataclass(frozen=True)
class UpstreamAnswer:
    """Detectron2's answer for one picture, best first.

    boxes_xyxy: Float32[N, 4] in the picture's pixels; scores: Float32[N]; classes: Int64[N];
    masks: Bool[N, H, W] or None.
    """

    boxes_xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    masks: npt.NDArray[np.bool_] | None


class UpstreamModel:
    """A model that `detectron2` itself builds, loads and runs as its DefaultPredictor does."""

    def __init__(self, config: Path, checkpoint: Path | None) -> None:
        """Weights come from `checkpoint`, or where None from the parameters' names."""
        from detectron2.checkpoint import DetectionCheckpointer
        from detectron2.config import get_cfg
        from detectron2.data.transforms import ResizeShortestEdge
        from detectron2.modeling import build_model

        cfg = get_cfg()
        cfg.merge_from_file(str(config))
        cfg.MODEL.DEVICE = "cpu"
        cfg.MODEL.WEIGHTS = ""
        self.input_format = cfg.INPUT.FORMAT
        self.model: Any = build_model(cfg).eval()
        self.resize = ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
        if checkpoint is not None:
            DetectionCheckpointer(self.model).load(str(checkpoint))
        else:
            self._seed_weights()

    def _seed_weights(self) -> None:
        state = self.model.state_dict()
        names = {
            name: tuple(tensor.shape)
            for name, tensor in state.items()
            if "cell_anchors" not in name
        }
        weights = {name: torch.from_numpy(array) for name, array in seeded_weights(names).items()}
        self.model.load_state_dict({**state, **weights}, strict=True)

    def predict(self, picture: npt.NDArray[np.uint8]) -> UpstreamAnswer:
        """Takes UInt8[H, W, 3] RGB."""
        ordered = picture[:, :, ::-1] if self.input_format == "BGR" else picture
        ordered = np.ascontiguousarray(ordered)
        resized = self.resize.get_transform(ordered).apply_image(ordered)
        image = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
        with torch.no_grad():
            height, width = picture.shape[:2]
            found = self.model([{"image": image, "height": height, "width": width}])[0]["instances"]
        return UpstreamAnswer(
            boxes_xyxy=found.pred_boxes.tensor.numpy(),
            scores=found.scores.numpy(),
            classes=found.pred_classes.numpy(),
            masks=found.pred_masks.numpy() if found.has("pred_masks") else None,
        )
