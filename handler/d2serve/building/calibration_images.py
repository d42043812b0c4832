"""Calibrate an archive's network for 8-bit integers on a folder of images."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor

from d2serve.detector.channels import fit_channels
from d2serve.detector.native import RUNTIME
from d2serve.errors import CommandError, RequestError
from d2serve.inputs.images import decode_image
from d2serve.model.calibration import Calibration
from d2serve.model.calibration_file import write_calibration
from d2serve.model.config import InputConfig, ModelConfig
from d2serve.model.int8 import calibrate
from d2serve.model.meta_arch import build_optimized
from d2serve.model.preprocessing import resize_image
from d2serve.model.serialization import decode_config, read_model_file
from d2serve.model.weights import WEIGHTS_FILE, read_weights
from d2serve.settings import PILLOW_MAX_PIXELS

# More images take longer and change little.
MAX_IMAGES = 64
CPU = torch.device("cpu")


def calibrate_folder(model_folder: Path, images: Path) -> Calibration:
    """Run a native model of an archive on images and write its `calibration.json`.

    Args:
        model_folder: the archive's model folder.
        images: a folder; of more than MAX_IMAGES image files some are used, spread evenly by name.

    Raises:
        CommandError: the folder has no images, or one cannot be decoded.
        ConfigError: the network has another backbone than a ResNet with FPN.
    """
    config = decode_config(read_model_file(model_folder, RUNTIME))
    model = build_optimized(config, read_weights(model_folder / WEIGHTS_FILE, mapped=True), CPU)

    def load(path: Path, sizes: InputConfig) -> tuple[Tensor, tuple[int, int]]:
        try:
            image = decode_image(
                path.read_bytes(), PILLOW_MAX_PIXELS, keep_alpha=config.input.channels == 4
            )
            fitted = fit_channels(image, config.input.channels, config.input.channel_order)
        except RequestError as error:
            raise CommandError(
                f"calibration image {path}: {error.message}; {error.hint}, or remove it"
            ) from error
        return resize_image(fitted, sizes), (image.shape[0], image.shape[1])

    def run(path: Path, sizes: InputConfig) -> None:
        image, size_hw = load(path, sizes)
        model([image], [size_hw])

    # Each image in one of the sizes that the network runs it in.
    runs: Sequence[Callable[[], None]] = [
        partial(run, path, sizes)
        for path, sizes in zip(image_files(images), cycle(_input_sizes(config)), strict=False)
    ]
    found = calibrate(model, runs)
    write_calibration(model_folder, found)
    return found


def _input_sizes(config: ModelConfig) -> list[InputConfig]:
    augmentation = config.augmentation
    if augmentation is None:
        return [config.input]
    return [
        replace(config.input, min_size=side, max_size=augmentation.max_size)
        for side in augmentation.min_sizes
    ]


def image_files(folder: Path) -> list[Path]:
    """At most MAX_IMAGES files of a folder, sorted by name; hidden ones are skipped.

    Raises:
        CommandError: the folder does not exist or is empty.
    """
    if not folder.is_dir():
        raise CommandError(f"--calibration {folder}: expected a folder of images")
    paths = sorted(
        path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")
    )
    if not paths:
        raise CommandError(f"--calibration {folder}: the folder is empty, expected images")
    count = min(len(paths), MAX_IMAGES)
    return [paths[index * len(paths) // count] for index in range(count)]


def summary(found: Calibration) -> str:
    """Describe the result in one line."""
    kept = f"; kept in higher precision: {', '.join(sorted(found.kept))}" if found.kept else ""
    return f"int8: largest error of a part {found.largest_error:.1%}{kept}"
