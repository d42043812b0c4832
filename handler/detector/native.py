"""The detector on our own network."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handler.detections import Detections
from handler.detector.interface import Outcome, Prepared, Size
from handler.detector.precision import choose_dtype
from handler.detector.running import BatchRunner
from handler.masks.panoptic import combine
from handler.pictures import Picture
from handler.rcnn.build import build_model, build_optimised
from handler.rcnn.checkpoint import read_npz, read_weights
from handler.rcnn.config import load_config
from handler.rcnn.config.model import PanopticConfig
from handler.rcnn.image_batch import padded_size, resize_picture
from handler.rcnn.instances import Found
from handler.rcnn.network import Network
from handler.rcnn.optimise import optimise
from handler.settings import Settings

CONFIG_FILE = "config.yaml"
WEIGHTS_FILE = "weights.pt"
# Of archives of before, whose weights were as in the checkpoint.
PLAIN_WEIGHTS_FILE = "weights.npz"


class NativeDetector:
    """Pictures in, detections out, many at a time.

    Args:
        model: on the device, its weights loaded; taken over, and changed to run quickly.
        device: where it runs.
        settings: what the operator chose.

    Raises:
        SettingsError: the precision is not for this device.
    """

    def __init__(self, model: Network, device: torch.device, settings: Settings) -> None:
        self.model = optimise(model, choose_dtype(settings.precision, device))
        self.device = device
        self.runner = BatchRunner(self._network, self._padded_size, settings)

    @classmethod
    def from_folder(
        cls, folder: Path, device: torch.device, settings: Settings
    ) -> "NativeDetector":
        """Loads the config and the weights of an unpacked archive.

        Raises:
            ConfigError, CheckpointError: either does not fit.
            SettingsError: the precision is not for this device.
        """
        config = load_config(folder / CONFIG_FILE)
        plain = folder / PLAIN_WEIGHTS_FILE
        if plain.exists():
            return cls(build_model(config, read_npz(plain), device), device, settings)
        # Other precisions and devices take copies, and need the file no longer.
        as_they_are = choose_dtype(settings.precision, device) is torch.float32
        mapped = as_they_are and device.type == "cpu"
        weights = read_weights(folder / WEIGHTS_FILE, mapped=mapped)
        return cls(build_optimised(config, weights, device), device, settings)

    @property
    def num_classes(self) -> int:
        """How many classes of things the model tells apart."""
        return self.model.config.output.num_classes

    @property
    def num_stuff_classes(self) -> int:
        """How many classes of stuff the model tells apart; 0 where it does not segment."""
        return self.model.config.output.num_stuff_classes

    @property
    def score_threshold(self) -> float:
        """The least score, 0..1, that the network lets through."""
        return self.model.config.output.score_threshold

    @property
    def max_detections(self) -> int:
        """How many detections of one picture the network gives at most."""
        return self.model.config.output.max_detections

    def warm_up(self) -> None:
        """Runs one grey picture, so that the first client does not wait for one-time set-up.

        Raises:
            RuntimeError: the network cannot run here.
        """
        side = self.model.config.input.min_size or 256
        picture = np.full((side, side, 3), 127, dtype=np.uint8)
        prepared = self.prepare(picture)
        self._network([prepared.image], [prepared.size_hw])

    def prepare(self, picture: Picture) -> Prepared:
        """Resizes UInt8[H, W, 3] RGB as the network wants it."""
        return Prepared(
            resize_picture(picture, self.model.config.input), (picture.shape[0], picture.shape[1])
        )

    def stream(self, pictures: Iterable[Prepared]) -> Iterator[tuple[int, Outcome]]:
        """Each picture's position and outcome, micro-batch by micro-batch."""
        return self.runner.run(pictures)

    def detect(self, pictures: Sequence[Picture]) -> list[Outcome]:
        """Detects in UInt8[H, W, 3] RGB pictures of any sizes; outcomes in the same order."""
        outcomes = dict(self.stream(map(self.prepare, pictures)))
        return [outcomes[position] for position in range(len(pictures))]

    def _padded_size(self, size_hw: Size) -> Size:
        backbone = self.model.backbone
        return padded_size(size_hw, backbone.size_divisibility, backbone.square_size)

    def _network(self, images: Sequence[Tensor], sizes_hw: Sequence[Size]) -> list[Detections]:
        on_device = [image.to(self.device, non_blocking=True) for image in images]
        found = self.model(on_device, sizes_hw)
        detections = [_detections(*pair) for pair in zip(found, sizes_hw, strict=True)]
        family = self.model.config.family
        if isinstance(family, PanopticConfig):
            return [_with_panoptic(image, family) for image in detections]
        return detections


def _detections(found: Found, size_hw: tuple[int, int]) -> Detections:
    instances = found.instances
    return Detections(
        size_hw=size_hw,
        boxes_xyxy=instances.boxes.numpy(force=True),
        scores=instances.scores.numpy(force=True),
        classes=instances.classes.numpy(force=True),
        masks=_array(instances.masks),
        keypoints=_array(instances.keypoints),
        semantic=_array(found.semantic),
    )


def _with_panoptic(found: Detections, config: PanopticConfig) -> Detections:
    assert found.semantic is not None
    combined = combine(
        found,
        found.semantic,
        config.overlap_threshold,
        config.stuff_area_limit,
        config.instance_threshold,
    )
    return replace(found, panoptic=combined)


def _array(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.numpy(force=True)
