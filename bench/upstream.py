"""Upstream Detectron2 as our peer: one picture at a time, as its DefaultPredictor goes.

Nothing here works without the `detectron2` package and pycocotools; `installed` tells.
"""

import io
import json
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.parts import PartClock
from handler.pictures import Picture
from tests.goldens.cases import GoldenModel
from tests.goldens.upstream import UpstreamModel

# COCO's results have as many digits.
DIGITS = 3


def installed() -> bool:
    """Whether upstream can take part."""
    return find_spec("detectron2") is not None and find_spec("pycocotools") is not None


class Upstream:
    """A model that `detectron2` builds and runs, and what its users put around it.

    Attributes:
        parts: decode, forward and encode of each answer.
    """

    def __init__(self, model: GoldenModel, device: torch.device) -> None:
        self.golden = UpstreamModel(model.config, model.checkpoint)
        self.model = self.golden.model.to(device)
        self.parts = PartClock()

    def resize(self, picture: Picture) -> Tensor:
        """UInt8[H, W, 3] RGB -> Float32[3, H', W'] in the model's channel order."""
        ordered = picture[:, :, ::-1] if self.golden.input_format == "BGR" else picture
        ordered = np.ascontiguousarray(ordered)
        resized = self.golden.resize.get_transform(ordered).apply_image(ordered)
        return torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))

    def detect(self, picture: Picture) -> Any:
        """Its `Instances`, in the network's pixels, masks of 28x28 not yet in the picture."""
        with torch.no_grad():
            image = {"image": self.resize(picture)}
            [found] = self.model.inference([image], do_postprocess=False)
        return found

    def answer(self, body: bytes) -> bytes:
        """An encoded picture -> JSON with boxes, scores, classes and RLE masks."""
        from detectron2.modeling.postprocessing import detector_postprocess

        self.parts.start()
        picture = np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))
        self.parts.end_of("decode")
        found = self.detect(picture)
        self.parts.end_of("forward")
        found = detector_postprocess(found, *picture.shape[:2]).to("cpu")
        content = {
            "boxes": found.pred_boxes.tensor.numpy().round(DIGITS).tolist(),
            "scores": found.scores.numpy().round(DIGITS).tolist(),
            "classes": found.pred_classes.tolist(),
            "masks": encode_masks(found.pred_masks.numpy()),
        }
        encoded = json.dumps(content).encode("ascii")
        self.parts.end_of("encode")
        return encoded


def paste_and_encode(
    masks: Any, boxes_xyxy: Any, size_hw: tuple[int, int]
) -> list[dict[str, object]]:
    """Float32[N, 28, 28] and Float32[N, 4] -> COCO's compressed RLE, as its evaluators do it."""
    return encode_masks(paste(masks, boxes_xyxy, size_hw))


def paste(masks: Any, boxes_xyxy: Any, size_hw: tuple[int, int]) -> Any:
    """Float32[N, 28, 28] and Float32[N, 4] -> Bool[N, H, W]."""
    from detectron2.layers.mask_ops import paste_masks_in_image

    boxes = torch.from_numpy(boxes_xyxy)
    return paste_masks_in_image(torch.from_numpy(masks), boxes, size_hw).numpy()


def encode_masks(pasted: Any) -> list[dict[str, object]]:
    """Bool[N, H, W] -> COCO's compressed RLE."""
    import pycocotools.mask

    encoded = (pycocotools.mask.encode(np.asfortranarray(mask.view(np.uint8))) for mask in pasted)
    return [
        {"size": list(each["size"]), "counts": each["counts"].decode("ascii")} for each in encoded
    ]
