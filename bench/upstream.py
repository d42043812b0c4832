"""Detectron2 itself as a baseline: one image at a time, as its DefaultPredictor runs it.

Needs the packages `detectron2` and `pycocotools`; see `installed`.
"""

import io
import json
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.timing import PartClock
from d2serve.detections import Detections, Picture
from tests.goldens.cases import GoldenModel
from tests.goldens.upstream import UpstreamModel

# As in COCO's result files.
DECIMALS = 3


def installed() -> bool:
    """Whether the baseline can run."""
    return find_spec("detectron2") is not None and find_spec("pycocotools") is not None


class Upstream:
    """A model that `detectron2` builds and runs, with the code its users write around it.

    Attributes:
        parts: decode, forward and encode of each response.
    """

    def __init__(self, model: GoldenModel, device: torch.device) -> None:
        self.golden = UpstreamModel(model.config, model.checkpoint)
        self.model = self.golden.model.to(device)
        self.parts = PartClock()

    def resize(self, image: Picture) -> Tensor:
        """UInt8[H, W, 3] RGB -> Float32[3, H', W'] in the model's channel order."""
        ordered = image[:, :, ::-1] if self.golden.input_format == "BGR" else image
        ordered = np.ascontiguousarray(ordered)
        resized = self.golden.resize.get_transform(ordered).apply_image(ordered)
        return torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))

    def detect(self, image: Picture) -> Any:
        """Run the network; `Instances` in its pixels, with masks of 28x28."""
        with torch.no_grad():
            [found] = self.model.inference([{"image": self.resize(image)}], do_postprocess=False)
        return found

    def respond(self, body: bytes) -> bytes:
        """An encoded image -> JSON with boxes, scores, classes and RLE masks."""
        from detectron2.modeling.postprocessing import detector_postprocess

        self.parts.start()
        image = np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))
        self.parts.end_of("decode")
        found = self.detect(image)
        self.parts.end_of("forward")
        found = detector_postprocess(found, *image.shape[:2]).to("cpu")
        content = {
            "boxes": found.pred_boxes.tensor.numpy().round(DECIMALS).tolist(),
            "scores": found.scores.numpy().round(DECIMALS).tolist(),
            "classes": found.pred_classes.tolist(),
            "masks": encode_masks(found.pred_masks.numpy()),
        }
        encoded = json.dumps(content).encode("ascii")
        self.parts.end_of("encode")
        return encoded


def paste(found: Detections) -> Any:
    """Paste masks of 28x28 into the image: Bool[N, H, W]."""
    from detectron2.layers.mask_ops import paste_masks_in_image

    assert found.masks is not None
    boxes = torch.from_numpy(found.boxes_xyxy)
    return paste_masks_in_image(torch.from_numpy(found.masks), boxes, found.size_hw).numpy()


def encode_masks(pasted: Any) -> list[dict[str, object]]:
    """Bool[N, H, W] -> COCO's compressed RLE."""
    import pycocotools.mask

    encoded = (pycocotools.mask.encode(np.asfortranarray(mask.view(np.uint8))) for mask in pasted)
    return [
        {"size": list(each["size"]), "counts": each["counts"].decode("ascii")} for each in encoded
    ]
