"""Pictures in, detections out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from handler.detections import Detections
from handler.detector.answers import detections_of
from handler.detector.batched import BatchedDetector
from handler.detector.interface import Prepared, Size
from handler.detector.native import PLAIN_WEIGHTS_FILE, WEIGHTS_FILE
from handler.detector.upstream.answers import answers_of
from handler.detector.upstream.limits import limits_of
from handler.detector.upstream.model import Resizing, build_model, load_weights
from handler.detector.upstream.padding import padding_of
from handler.pictures import Picture
from handler.rcnn.checkpoint import read_npz, read_weights
from handler.rcnn.image_batch import resize_picture
from handler.settings import Settings


class UpstreamDetector(BatchedDetector):
    """Pictures in, detections out, many at a time."""

    def __init__(
        self, model: Any, resizing: Resizing, device: torch.device, settings: Settings
    ) -> None:
        self.model = model
        self.resizing = resizing
        self.device = device
        self.limits = limits_of(model)
        super().__init__(padding_of(model, resizing), settings)

    @classmethod
    def from_folder(
        cls, folder: Path, device: torch.device, settings: Settings
    ) -> "UpstreamDetector":
        """Loads the config and the weights of an unpacked archive.

        Raises:
            PackageError: the package cannot be imported.
            ConfigError, CheckpointError: either does not fit.
        """
        model, resizing = build_model(folder, device)
        plain = folder / PLAIN_WEIGHTS_FILE
        stored = read_npz(plain) if plain.exists() else read_weights(folder / WEIGHTS_FILE)
        load_weights(model, stored)
        return cls(model, resizing, device, settings)

    @property
    def num_classes(self) -> int:
        """How many classes of instances the model tells apart; 0 where it finds none."""
        return self.limits.num_classes

    @property
    def num_stuff_classes(self) -> int:
        """How many classes of stuff the model tells apart; 0 where it does not segment."""
        return self.limits.num_stuff_classes

    @property
    def score_threshold(self) -> float:
        """The least score, 0..1, that the network lets through."""
        return self.limits.score_threshold

    @property
    def max_detections(self) -> int:
        """How many detections of one picture the network gives at most."""
        return self.limits.max_detections

    def prepare(self, picture: Picture) -> Prepared:
        """Resizes UInt8[H, W, 3] RGB as the network wants it."""
        return Prepared(
            resize_picture(picture, self.resizing), (picture.shape[0], picture.shape[1])
        )

    def _min_size(self) -> int:
        return self.resizing.min_size

    def _network(self, images: Sequence[Tensor], sizes_hw: Sequence[Size]) -> list[Detections]:
        inputs = [
            {"image": image.to(self.device), "height": height, "width": width}
            for image, (height, width) in zip(images, sizes_hw, strict=True)
        ]
        with torch.inference_mode():
            answers = answers_of(self.model, inputs)
            return [detections_of(*pair) for pair in zip(answers, sizes_hw, strict=True)]
