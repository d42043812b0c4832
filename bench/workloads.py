"""Models, images and requests that the benchmarks run on, full size or small for a trial."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from d2serve.detections import RGBImage
from d2serve.detector.native import NativeDetector, choose_dtype
from d2serve.messages import HttpRequest, Part
from d2serve.metadata import ModelMetadata
from d2serve.model.int8 import calibrate
from d2serve.model.network import Network
from d2serve.model.optimize import optimize
from d2serve.model.preprocessing import resize_image
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.process import decode_threads
from d2serve.serving.reporter import SILENT, Reporter
from d2serve.settings import Settings
from tests.goldens.cases import SAMPLES, TINY, TRAINED, GoldenModel

CONFIG = Path(__file__).with_name("mask_rcnn_r50_fpn.yaml")
R50_FPN = GoldenModel("R50-FPN", CONFIG, None, tuple(SAMPLES))
SIZES_WH = ((640, 480), (1920, 1080), (4000, 3000))
SMALL_SIZES_WH = ((160, 120), (120, 160))
PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
TILE_WH = (320, 240)
JPEG = "image/jpeg"


@dataclass(frozen=True)
class Scale:
    """Device and precisions of the network; sizes of images for the other stages, and for the
    network; `model` is the larger of two; the figures of a `quick` trial mean nothing."""

    device: torch.device
    precisions: tuple[str, ...]
    sizes_wh: tuple[tuple[int, int], ...] = SIZES_WH
    image_wh: tuple[int, int] = SIZES_WH[0]
    instances: int = 100
    model: GoldenModel = R50_FPN
    batches: tuple[int, ...] = (1, 8)
    quick: bool = False

    @property
    def models(self) -> tuple[GoldenModel, ...]:
        """The bundled model and the larger one."""
        return (TRAINED, self.model)

    def detector(self, model: GoldenModel, precision: str = "fp32") -> NativeDetector:
        """Load a model on the device, as a worker does."""
        network, found = model.build().to(self.device), None
        if precision == "int8":
            found = calibrate(optimize(network).eval(), [partial(self._run, network)])
        return NativeDetector(network, self.device, Settings(precision=precision), found)

    def _run(self, network: Network) -> None:
        image = image_of(self.image_wh)
        network([resize_image(image, network.config.input)], [image.shape[:2]])


def quick_scale(device: torch.device, precisions: tuple[str, ...]) -> Scale:
    """Sizes for a trial within seconds."""
    [tiny] = [model for model in TINY if model.name == "mask_rcnn_r50"]
    sizes = (SMALL_SIZES_WH, SMALL_SIZES_WH[0])
    return Scale(device, precisions, *sizes, 5, tiny, batches=(1, 2), quick=True)


def native_precisions(device: torch.device) -> tuple[str, ...]:
    """fp32, and the half precision that the device computes natively, if any."""
    return tuple(dict.fromkeys(("fp32", PRECISIONS[choose_dtype("auto", device)])))


def image_of(size_wh: tuple[int, int]) -> RGBImage:
    """Tile four sample images to UInt8[H, W, 3] RGB."""
    tiles = [np.array(Image.open(path).convert("RGB").resize(TILE_WH)) for path in SAMPLES]
    collage = np.vstack((np.hstack(tiles[:2]), np.hstack(tiles[2:4])))
    width, height = size_wh
    times = (-(-height // collage.shape[0]), -(-width // collage.shape[1]), 1)
    return np.ascontiguousarray(np.tile(collage, times)[:height, :width])


def size_text(size_wh: tuple[int, int]) -> str:
    """Format a size, such as 640x480."""
    return f"{size_wh[0]}x{size_wh[1]}"


def encode_image(image: RGBImage, file_format: str = "JPEG") -> bytes:
    """Encode an image as JPEG, PNG or, for "NPY", as numpy.save does."""
    file = io.BytesIO()
    if file_format == "NPY":
        np.save(file, image)
    else:
        Image.fromarray(image).save(file, file_format, quality=90)
    return file.getvalue()


def jpeg_requests(bodies: Sequence[bytes]) -> list[HttpRequest]:
    """Requests as the server passes them to a worker's pipeline."""
    return [HttpRequest({"content-type": JPEG}, (Part(JPEG, body),)) for body in bodies]


def pipeline_of(
    detector: NativeDetector, name: str, threads: int | None = None, reporter: Reporter = SILENT
) -> Pipeline:
    """The pipeline of a worker; requests that are submitted together share forward passes. By
    default as many threads decode as in a worker that has the machine for itself."""
    names = tuple(f"class {index}" for index in range(detector.num_classes))
    return Pipeline(
        detector,
        ModelMetadata(name, names, detector.score_threshold, detector.max_detections),
        Settings(),
        reporter=reporter,
        threads=threads or decode_threads(0, workers=1),
        server_forms_batches=True,
    )


def checkpoint_of(model: GoldenModel, folder: Path) -> Path:
    """The model's checkpoint; seeded weights are written into `folder`."""
    if model.checkpoint is not None:
        return model.checkpoint
    path = folder / "model.pth"
    torch.save({"model": model.build().state_dict()}, path)
    return path
