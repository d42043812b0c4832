"""Detectron2 itself as a baseline: one image at a time, as its DefaultPredictor runs it, with the
packages `detectron2` and `pycocotools`; see `installed`."""

import io
import json
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from d2serve.detections import Detections, RGBImage
from tests.goldens.cases import GoldenModel
from tests.goldens.upstream import UpstreamModel


def installed() -> bool:
    """Return whether the baseline can run."""
    return find_spec("detectron2") is not None and find_spec("pycocotools") is not None


class Upstream:
    """A model that `detectron2` builds and runs, with the code its users write around it."""

    def __init__(self, model: GoldenModel, device: torch.device) -> None:
        self.golden = UpstreamModel(model.config, model.checkpoint)
        self.model = self.golden.model.to(device)

    def resize(self, image: RGBImage) -> Tensor:
        """UInt8[H, W, 3] RGB -> Float32[3, H', W'] in the model's channel order."""
        ordered = image[:, :, ::-1] if self.golden.input_format == "BGR" else image
        ordered = np.ascontiguousarray(ordered)
        resized = self.golden.resize.get_transform(ordered).apply_image(ordered)
        return torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))

    def detect(self, image: RGBImage) -> Any:
        """Run the network; `Instances` in its pixels, with masks of 28x28."""
        with torch.no_grad():
            [found] = self.model.inference([{"image": self.resize(image)}], do_postprocess=False)
        return found

    def respond(self, body: bytes) -> bytes:
        """An encoded image -> JSON with boxes, scores, classes and RLE masks."""
        from detectron2.modeling.postprocessing import detector_postprocess

        image = np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))
        found = detector_postprocess(self.detect(image), *image.shape[:2]).to("cpu")
        # COCO's result files have three decimals.
        numbers = {"boxes": found.pred_boxes.tensor, "scores": found.scores}
        content = {name: each.numpy().round(3).tolist() for name, each in numbers.items()}
        content["classes"] = found.pred_classes.tolist()
        encoded = json.dumps({**content, "masks": encode_masks(found.pred_masks.numpy())})
        return encoded.encode("ascii")


def paste_to_rle(found: Detections) -> list[dict[str, object]]:
    """Paste masks of 28x28 into the image, and encode them."""
    from detectron2.layers.mask_ops import paste_masks_in_image

    assert found.masks is not None
    boxes = torch.from_numpy(found.boxes_xyxy)
    masks = torch.from_numpy(found.masks)
    return encode_masks(paste_masks_in_image(masks, boxes, found.size_hw).numpy())


def encode_masks(pasted: Any) -> list[dict[str, object]]:
    """Bool[N, H, W] -> COCO's compressed RLE."""
    from pycocotools.mask import encode

    encoded = [encode(np.asfortranarray(mask.view(np.uint8))) for mask in pasted]
    return [{"size": list(rle["size"]), "counts": rle["counts"].decode()} for rle in encoded]
