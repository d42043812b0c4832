"""How much is timed: all that a reader wants to know, or little for a test."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from handler.detector.native import NativeDetector
from handler.detector.precision import choose_dtype
from handler.pictures import Picture
from handler.settings import Settings
from tests.goldens.cases import SAMPLES, TINY, TRAINED, GoldenModel

R50_FPN = GoldenModel(
    "R50-FPN", Path(__file__).with_name("mask_rcnn_r50_fpn.yaml"), None, tuple(SAMPLES)
)
SIZES_WH = ((640, 480), (1920, 1080), (4000, 3000))
BATCHES = (1, 8)
SMALL_SIZES_WH = ((160, 120), (120, 160))
SMALL_BATCHES = (1, 2)
PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
TILES, TILE_WH = (2, 2), (320, 240)


@dataclass(frozen=True)
class Scale:
    """What the stages are timed on.

    Attributes:
        device: where the network runs.
        precisions: in which, one after another; names as of the setting.
        sizes_wh: of pictures in pixels, width first, for all but the network.
        picture_wh: of the pictures that go through the network.
        instances: detections of a picture, for masks and encoding.
        model: the larger of the two models, weights drawn from their names.
        batches: requests that go through the pipeline together.
    """

    device: torch.device
    precisions: tuple[str, ...]
    sizes_wh: tuple[tuple[int, int], ...] = SIZES_WH
    picture_wh: tuple[int, int] = SIZES_WH[0]
    instances: int = 100
    model: GoldenModel = R50_FPN
    batches: tuple[int, ...] = BATCHES

    @property
    def models(self) -> tuple[GoldenModel, ...]:
        """The bundled one and the larger."""
        return (TRAINED, self.model)

    def detector(self, model: GoldenModel, precision: str = "fp32") -> NativeDetector:
        """Ours, on the device."""
        network = model.build().to(self.device)
        return NativeDetector(network, self.device, Settings(precision=precision))


def quick_scale(device: torch.device, precisions: tuple[str, ...]) -> Scale:
    """All stages within seconds: what comes out says nothing about speed."""
    [tiny] = [model for model in TINY if model.name == "mask_rcnn_r50"]
    return Scale(device, precisions, SMALL_SIZES_WH, SMALL_SIZES_WH[0], 5, tiny, SMALL_BATCHES)


def quickest_precisions(device: torch.device) -> tuple[str, ...]:
    """float32, and the shorter type that the device computes natively, if any."""
    native = PRECISIONS[choose_dtype("auto", device)]
    return tuple(dict.fromkeys(("fp32", native)))


def picture_of(size_wh: tuple[int, int]) -> Picture:
    """Sample pictures side by side, as often as it takes."""
    tiles = [np.array(Image.open(path).convert("RGB").resize(TILE_WH)) for path in SAMPLES]
    rows, columns = TILES
    collage = np.vstack(
        [np.hstack(tiles[row * columns : (row + 1) * columns]) for row in range(rows)]
    )
    width, height = size_wh
    times = (-(-height // collage.shape[0]), -(-width // collage.shape[1]), 1)
    return np.ascontiguousarray(np.tile(collage, times)[:height, :width])


def size_text(size_wh: tuple[int, int]) -> str:
    """Such as 640x480."""
    width, height = size_wh
    return f"{width}x{height}"
