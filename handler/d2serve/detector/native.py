"""The detector on our own network."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2serve.building.config import load_config
from d2serve.detections import Detections, Picture
from d2serve.detector.base import Prepared, Size
from d2serve.detector.batching import BatchedDetector
from d2serve.detector.cuda_graphs import take_graphs
from d2serve.detector.precision import choose_dtype
from d2serve.masks.panoptic import combine
from d2serve.model.config import PanopticConfig
from d2serve.model.image_list import (
    padded_size,
    planar,
    resize_on_device,
    resize_picture,
    shortest_edge_size,
    to_device,
    to_host,
)
from d2serve.model.meta_arch import build_model, build_optimised
from d2serve.model.network import Network
from d2serve.model.optimise import optimise
from d2serve.model.packed_conv import pack
from d2serve.model.structures import Found
from d2serve.model.weights import read_npz, read_weights
from d2serve.settings import Settings


def detections_of(found: Sequence[Found], sizes_hw: Sequence[tuple[int, int]]) -> list[Detections]:
    """Brings all pictures' results to the host in one copy; boxes that are empty are left out.

    Args:
        found: one per picture.
        sizes_hw: heights and widths of the pictures.
    """
    fields = [_fields(image) for image in found]
    on_host = iter(to_host([tensor for image in fields for tensor in image.values()]))
    return [
        _detections({name: next(on_host).numpy() for name in image}, size_hw)
        for image, size_hw in zip(fields, sizes_hw, strict=True)
    ]


def _fields(found: Found) -> dict[str, Tensor]:
    """By the names that `Detections` has for them."""
    own = found.instances
    fields = {
        "boxes_xyxy": own.boxes,
        "scores": own.scores,
        "classes": own.classes,
        "masks": own.masks,
        "keypoints": own.keypoints,
        "semantic": found.semantic,
    }
    return {name: tensor for name, tensor in fields.items() if tensor is not None}


def _detections(fields: dict[str, Any], size_hw: tuple[int, int]) -> Detections:
    semantic = fields.pop("semantic", None)
    boxes = fields["boxes_xyxy"]
    full = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if not full.all():
        fields = {name: values[full] for name, values in fields.items()}
    # Numbers came as float32 if they came from a GPU.
    fields["classes"] = fields["classes"].astype(np.int64, copy=False)
    if semantic is not None:
        fields["semantic"] = semantic.astype(np.int32, copy=False)
    return Detections(size_hw, **fields)


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
