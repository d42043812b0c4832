"""Load an unpacked archive into a pipeline that is ready for requests."""

import io
import json
import logging
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from d2serve.detector.base import Detector, ModelDetector
from d2serve.detector.detectron2.detector import UpstreamDetector
from d2serve.detector.native import NativeDetector
from d2serve.inputs.jpeg_decoders import jpeg_decoder
from d2serve.messages import HttpRequest, Part
from d2serve.metadata import (
    CLASSES_FILE,
    ClassCounts,
    ModelMetadata,
    check_class_names,
    read_class_names,
)
from d2serve.outputs.labels import read_labels
from d2serve.serving.integrity import verify_folder
from d2serve.serving.metrics import NO_METRICS, MetricsSink
from d2serve.serving.model_config import MODEL_CONFIG_FILE, read_settings
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.process import (
    decode_threads,
    enable_huge_pages,
    keep_freed_memory,
    release_freed_memory,
    set_num_threads,
)
from d2serve.serving.reporter import Reporter
from d2serve.serving.requests import HttpResponse
from d2serve.settings import Settings, image_sizes

logger = logging.getLogger(__name__)
# The folder of an archive that contains the model.
MODEL_FOLDER = "model"
SLOW = HTTPStatus.SERVICE_UNAVAILABLE
DETECTORS: dict[str, type[NativeDetector] | type[UpstreamDetector]] = {
    "native": NativeDetector,
    "detectron2": UpstreamDetector,
}


def load_pipeline(
    folder: Path,
    device: torch.device,
    name: str,
    *,
    share: int | Callable[[], int] = 1,
    sink: MetricsSink = NO_METRICS,
    server_forms_batches: bool = False,
    shares_weights: bool | Callable[[], bool] = False,
    overrides: Mapping[str, Any] | None = None,
) -> Pipeline:
    """Verify an archive's files, load the model, and run images of the usual sizes through it.

    Sets the number of threads of this process as the archive's settings define it; on the CPU the
    process keeps freed memory from then on.

    Args:
        folder: the unpacked archive.
        device: the network's device.
        name: the model's name in responses.
        share: number of processes and models that share this machine's cores, or a function that
            reads it, which is called when the files are verified.
        sink: publishes the metrics.
        server_forms_batches: see `Pipeline`.
        shares_weights: whether other processes of this machine serve the same model, or a function
            as for `share`; on the CPU they then have one copy of the weights, see `share_weights`.
        overrides: see `read_settings`.

    Raises:
        ArchiveError: the files are not those that were packed.
        SettingsError, ConfigError, CheckpointError, ClassNamesError: one of them is not valid.
        RuntimeError: the model cannot run on this machine.
    """
    if device.type == "cpu":
        keep_freed_memory()
    # GNU OpenMP keeps a pool for each thread that has computed in parallel, and its threads spin
    # less while there are more of them than CPUs: every forward pass would take longer if the pool
    # of the thread that loads the model existed beside that of the inference thread.
    with ThreadPoolExecutor(1, thread_name_prefix="loading") as loading_thread:
        load = partial(
            _load, folder, device, name, share, sink, server_forms_batches, overrides or {}
        )
        pipeline = loading_thread.submit(load).result()
        shares = shares_weights() if callable(shares_weights) else shares_weights
        if shares and device.type == "cpu" and sys.platform == "linux":
            loading_thread.submit(_share, pipeline.detector).result()
        return pipeline


def _load(
    folder: Path,
    device: torch.device,
    name: str,
    share: int | Callable[[], int],
    sink: MetricsSink,
    server_forms_batches: bool,
    overrides: Mapping[str, Any],
) -> Pipeline:
    enable_huge_pages()
    verify_folder(folder)
    settings = read_settings(folder / MODEL_CONFIG_FILE, overrides=overrides)
    share = share() if callable(share) else share
    set_num_threads(settings.threads, share)
    decode_jpeg = jpeg_decoder(settings.decode, device)
    detector = load_detector(folder, device, settings)
    # The checkpoint and the weights before their conversion.
    release_freed_memory()
    model = read_metadata(folder, detector, name)
    pipeline = Pipeline(
        detector,
        model,
        settings,
        threads=decode_threads(settings.decode_threads, share),
        decode_jpeg=decode_jpeg,
        server_forms_batches=server_forms_batches,
    )
    batches = {1} if device.type == "cpu" else {1, settings.images_per_forward}
    warm_up(pipeline, image_sizes(settings.warm_up_sizes), sorted(batches))
    pipeline.reporter = Reporter(sink, device, name, logs_requests=settings.request_log)
    pipeline.reporter.report_start()
    return pipeline


def _share(detector: Detector) -> None:
    # Not on systems without files that processes map and lock.
    from d2serve.model.shared_weights import share_weights

    if not isinstance(detector, NativeDetector):
        return
    shared = share_weights(detector.model)
    if shared:
        logger.info("%.0f MB of weights are in memory that workers share", shared / 1e6)
        release_freed_memory()


def load_detector(folder: Path, device: torch.device, settings: Settings) -> ModelDetector:
    """Load the model of an unpacked archive with the runtime of the settings.

    Raises:
        RuntimeUnavailableError: the model needs the detectron2 package, which cannot be imported.
        ConfigError, CheckpointError: the config or the weights are not valid.
    """
    return DETECTORS[settings.runtime].from_folder(folder / MODEL_FOLDER, device, settings)


def read_metadata(folder: Path, detector: ModelDetector, name: str) -> ModelMetadata:
    """Read the class names and labels of an unpacked archive; the rest is the detector's.

    Raises:
        ClassNamesError: they cannot be read or do not match the model.
    """
    names = read_class_names(folder / MODEL_FOLDER / CLASSES_FILE)
    counts = ClassCounts(detector.num_classes, detector.num_stuff_classes)
    check_class_names(names, counts, CLASSES_FILE)
    return ModelMetadata(
        name,
        names.things,
        detector.score_threshold,
        detector.max_detections,
        names.stuff,
        read_labels(folder / MODEL_FOLDER),
        channels=detector.channels,
    )


def warm_up(
    pipeline: Pipeline, sizes_wh: Iterable[tuple[int, int]], batches: Collection[int]
) -> None:
    """Run images through all stages, so that the first requests do not wait for one-time set-up.

    Libraries load parts of themselves, choose kernels and allocate memory for the first image of
    a size. Sizes that the settings reject are skipped, because clients cannot send them either.

    Args:
        pipeline: the pipeline.
        sizes_wh: widths and heights in pixels.
        batches: numbers of images that run together; each is run for each size.

    Raises:
        RuntimeError: an image of an accepted size fails.
    """
    for width, height in sizes_wh:
        part = _noise(width, height, pipeline.stages.model.channels)
        request = HttpRequest({}, (part,), {}, "warm-up")
        for count in batches:
            for response in pipeline.run_together([request] * count):
                _check_warm_up(response, f"warm-up with {count} of {width}x{height}")


def _check_warm_up(response: HttpResponse, action: str) -> None:
    if response.status == HTTPStatus.OK:
        return
    message = json.loads(response.body)["error"]["message"]
    # Larger than the settings accept, or slower than they let a client wait.
    if response.status < HTTPStatus.INTERNAL_SERVER_ERROR or response.status == SLOW:
        logger.warning("%s got no result: %s", action, message)
        return
    raise RuntimeError(
        f"{action} failed: {message} ({response.status}); the log above contains the cause"
    )


def _noise(width: int, height: int, channels: int) -> Part:
    """A JPEG of noise, in which a network finds regions to process; a PNG for four channels."""
    shape = (height, width, max(channels, 3))
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    kind = "PNG" if channels == 4 else "JPEG"
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return Part(f"image/{kind.lower()}", file.getvalue())
