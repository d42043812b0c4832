"""An unpacked archive -> a pipeline that is ready for requests, whatever server hands them over."""

from pathlib import Path

import torch

from handler.class_names import CLASSES_FILE, ClassCounts, check_class_names, read_class_names
from handler.detector.interface import ModelDetector
from handler.detector.loading import load_detector
from handler.executors import start_executor
from handler.huge_pages import take_huge_pages
from handler.inputs.jpeg import jpeg_decoder
from handler.integrity import check_folder
from handler.model_facts import ModelFacts
from handler.pipeline import Pipeline
from handler.serving_file import SERVING_FILE, read_settings, read_workers
from handler.settings import picture_sizes
from handler.threads import decode_threads, take_threads
from handler.warm_up import warm_up


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
