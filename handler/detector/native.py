"""The detector on our own network."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from handler.detections import Detections
from handler.detector.batched import BatchedDetector
from handler.detector.found import detections_of
from handler.detector.graphs import take_graphs
from handler.detector.interface import Prepared, Size
from handler.detector.precision import choose_dtype
from handler.masks.panoptic import combine
from handler.pictures import Picture
from handler.rcnn.build import build_model, build_optimised
from handler.rcnn.checkpoint import read_npz, read_weights
from handler.rcnn.config import load_config
from handler.rcnn.config.model import PanopticConfig
from handler.rcnn.image_batch import (
    padded_size,
    planar,
    resize_on_device,
    resize_picture,
    shortest_edge_size,
)
from handler.rcnn.network import Network
from handler.rcnn.optimise import optimise
from handler.rcnn.packing import pack
from handler.rcnn.transfer import to_device
from handler.settings import Settings

CONFIG_FILE = "config.yaml"
WEIGHTS_FILE = "weights.pt"
# Of archives of before, whose weights were as in the checkpoint.
PLAIN_WEIGHTS_FILE = "weights.npz"


class NativeDetector(BatchedDetector):
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
        if device.type == "cpu":
            pack(self.model)
        if settings.cuda_graphs:
            take_graphs(self.model, device)
        self.device = device
        self.resizes_on_device = settings.resize == "device"
        self._prepare = planar if self.resizes_on_device else resize_picture
        super().__init__(self._padded_size, settings)

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

    def prepare(self, picture: Picture) -> Prepared:
        """UInt8[H, W, 3] RGB as the network wants it, resized unless the device does that."""
        image = self._prepare(picture, self.model.config.input)
        return Prepared(image, (picture.shape[0], picture.shape[1]))

    def _min_size(self) -> int:
        return self.model.config.input.min_size

    def _padded_size(self, size_hw: Size) -> Size:
        entry, backbone = self.model.config.input, self.model.backbone
        if self.resizes_on_device:
            size_hw = shortest_edge_size(size_hw, entry.min_size, entry.max_size)
        return padded_size(size_hw, backbone.size_divisibility, backbone.square_size)

    def _network(self, images: Sequence[Tensor], sizes_hw: Sequence[Size]) -> list[Detections]:
        on_device = [to_device(image, self.device) for image in images]
        if self.resizes_on_device:
            on_device = [resize_on_device(image, self.model.config.input) for image in on_device]
        detections = detections_of(self.model(on_device, sizes_hw), sizes_hw)
        family = self.model.config.family
        if isinstance(family, PanopticConfig):
            return [_with_panoptic(image, family) for image in detections]
        return detections


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
