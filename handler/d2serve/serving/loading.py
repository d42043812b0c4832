"""Load an unpacked archive into a pipeline that is ready for requests."""

import io
import json
import logging
from collections.abc import Collection, Iterable
from http import HTTPStatus
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from d2serve.detector.base import ModelDetector
from d2serve.detector.detectron2.detector import UpstreamDetector
from d2serve.detector.native import NativeDetector
from d2serve.inputs.images import jpeg_decoder
from d2serve.messages import HttpRequest, Part
from d2serve.metadata import (
    CLASSES_FILE,
    ClassCounts,
    ModelFacts,
    check_class_names,
    read_class_names,
)
from d2serve.serving.integrity import check_folder
from d2serve.serving.model_config import SERVING_FILE, read_settings, read_workers
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.process import decode_threads, start_executor, take_huge_pages, take_threads
from d2serve.serving.telemetry import HttpResponse
from d2serve.settings import Settings, picture_sizes

DETECTORS: dict[str, type[NativeDetector] | type[UpstreamDetector]] = {
    "native": NativeDetector,
    "detectron2": UpstreamDetector,
}


def load_detector(folder: Path, device: torch.device, settings: Settings) -> ModelDetector:
    """Loads the model of an unpacked archive by `settings.runtime`.

    Raises:
        PackageError: the archive needs the detectron2 package, which cannot be imported here.
        ConfigError, CheckpointError: the config or the weights do not fit.
    """
    return DETECTORS[settings.runtime].from_folder(folder, device, settings)


logger = logging.getLogger(__name__)


def warm_up(
    pipeline: Pipeline, sizes_wh: Iterable[tuple[int, int]], batches: Collection[int]
) -> None:
    """Sends JPEGs through all stages, because libraries load parts, and networks choose kernels and
    take memory, for the first picture of a size.

    A size that the settings refuse is left out: clients cannot send it either.

    Args:
        pipeline: what clients will use.
        sizes_wh: widths and heights in pixels.
        batches: how many pictures of a size go together; each number is tried.

    Raises:
        RuntimeError: a picture that clients may send is not answered.
    """
    for size_wh in sizes_wh:
        request = HttpRequest({}, (Part("image/jpeg", _noise(size_wh)),), {}, "warm-up")
        for count in batches:
            for response in pipeline.run([request] * count):
                _check(response, f"warming up with {count} of {size_wh[0]}x{size_wh[1]}")


def _check(response: HttpResponse, what: str) -> None:
    if response.status == HTTPStatus.OK:
        return
    message = json.loads(response.body)["error"]["message"]
    if response.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.warning("%s is left out: %s", what, message)
        return
    raise RuntimeError(f"{what} failed: {message} ({response.status}); the log above may tell more")


def _noise(size_wh: tuple[int, int]) -> bytes:
    """A JPEG with something everywhere, so that a network finds regions to look into."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size_wh[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def load_pipeline(folder: Path, device: torch.device, name: str) -> Pipeline:
    """Checks the files, loads the model, and runs pictures of the usual sizes through it.

    This process takes the threads that the archive's settings give to one of its workers.

    Args:
        folder: with the archive's files.
        device: where the network runs.
        name: what clients are told that the model is called.

    Raises:
        IntegrityError: the files are not those that were packed.
        SettingsError, ConfigError, CheckpointError, ClassNamesError: one of them is not valid.
        RuntimeError: the model cannot run here.
    """
    take_huge_pages()
    check_folder(folder)
    settings = read_settings(folder / SERVING_FILE)
    workers = read_workers(folder / SERVING_FILE)
    take_threads(settings.threads, workers)
    decode_jpeg = jpeg_decoder(settings.decode, device)
    detector = load_detector(folder, device, settings)
    executor = start_executor(decode_threads(settings.decode_threads, workers))
    facts = _facts(folder, detector, name)
    pipeline = Pipeline(detector, facts, settings, executor, decode_jpeg)
    batches = {1} if device.type == "cpu" else {1, settings.images_per_forward}
    warm_up(pipeline, picture_sizes(settings.warm_up_sizes), sorted(batches))
    return pipeline


def _facts(folder: Path, detector: ModelDetector, name: str) -> ModelFacts:
    names = read_class_names(folder / CLASSES_FILE)
    counts = ClassCounts(detector.num_classes, detector.num_stuff_classes)
    check_class_names(names, counts, CLASSES_FILE)
    return ModelFacts(
        name, names.things, detector.score_threshold, detector.max_detections, names.stuff
    )
