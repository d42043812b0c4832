"""The detector that an archive asks for."""

from pathlib import Path

import torch

from handler.detector.interface import ModelDetector
from handler.detector.native import NativeDetector
from handler.detector.upstream.detector import UpstreamDetector
from handler.settings import Settings

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
