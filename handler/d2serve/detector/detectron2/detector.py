"""The detector on the upstream `detectron2` package."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from d2serve.detections import Detections, RGBImage
from d2serve.detector.base import PreprocessedImage, Size
from d2serve.detector.batching import BatchedDetector
from d2serve.detector.channels import fit_channels
from d2serve.detector.detectron2.inference import run_inference
from d2serve.detector.detectron2.model import Resizing, build_model, load_weights, padding_of
from d2serve.detector.detectron2.outputs import to_detections
from d2serve.errors import ConfigError
from d2serve.model.preprocessing import resize_image
from d2serve.model.weights import WEIGHTS_FILE, read_weights
from d2serve.settings import Settings


@dataclass(frozen=True)
class Limits:
    """Limits of the detections in an image.

    Attributes:
        num_classes: number of thing classes; 0 if the model detects no instances.
        score_threshold: minimum score, 0..1, of the network's detections.
        max_detections: maximum number of detections, at least 1.
        num_stuff_classes: number of stuff classes; 0 if the model does not segment.
    """

    num_classes: int
    score_threshold: float
    max_detections: int
    num_stuff_classes: int = 0


class UpstreamDetector(BatchedDetector):
    """Detect objects in images with a network of the package."""

    def __init__(
        self, model: Any, resizing: Resizing, device: torch.device, settings: Settings
    ) -> None:
        self.model = model
        self.resizing = resizing
        self.device = device
        self.limits = limits_of(model)
        padded_size = padding_of(model, resizing)
        super().__init__(lambda size_hw: [padded_size(size_hw)], settings)

    @classmethod
    def from_folder(
        cls, folder: Path, device: torch.device, settings: Settings
    ) -> "UpstreamDetector":
        """Load the network of an archive's model folder.

        Raises:
            RuntimeUnavailableError: the package cannot be imported.
            ConfigError: the package cannot build the config.
            CheckpointError: the weights cannot be read or do not match the network.
        """
        model, resizing = build_model(folder, device)
        load_weights(model, read_weights(folder / WEIGHTS_FILE))
        return cls(model, resizing, device, settings)

    @property
    def num_classes(self) -> int:
        """Number of thing classes; 0 if the model detects no instances."""
        return self.limits.num_classes

    @property
    def num_stuff_classes(self) -> int:
        """Number of stuff classes; 0 if the model does not segment."""
        return self.limits.num_stuff_classes

    @property
    def score_threshold(self) -> float:
        """Minimum score, 0..1, of the network's detections."""
        return self.limits.score_threshold

    @property
    def max_detections(self) -> int:
        """Maximum number of detections in an image."""
        return self.limits.max_detections

    @property
    def channels(self) -> int:
        """Number of channels of the network's input: 1, 3 or 4."""
        return self.resizing.channels

    def preprocess(self, image: RGBImage) -> PreprocessedImage:
        """Resize UInt8[H, W, 3] RGB to the size of the network's input.

        Raises:
            RequestError: 422 the fourth channel is missing.
        """
        fitted = fit_channels(image, self.channels, self.resizing.channel_order)
        return PreprocessedImage(
            resize_image(fitted, self.resizing), (image.shape[0], image.shape[1])
        )

    def _min_size(self) -> int:
        return self.resizing.min_size

    def _run_network(self, images: Sequence[Tensor], sizes_hw: Sequence[Size]) -> list[Detections]:
        inputs = [
            {"image": image.to(self.device), "height": height, "width": width}
            for image, (height, width) in zip(images, sizes_hw, strict=True)
        ]
        with torch.inference_mode():
            outputs = run_inference(self.model, inputs)
            return [to_detections(*image) for image in zip(outputs, sizes_hw, strict=True)]


def limits_of(model: Any) -> Limits:
    """Read the limits of a built model, independent of its config.

    Raises:
        ConfigError: the model is neither of `detectron2.modeling.meta_arch` nor Panoptic-DeepLab.
    """
    if hasattr(model, "roi_heads"):
        return replace(_limits_of_heads(model), num_stuff_classes=_stuff_classes(model))
    if hasattr(model, "max_detections_per_image"):  # RetinaNet, FCOS
        limit = model.max_detections_per_image
        if limit < 0:
            limit = len(model.head_in_features) * model.test_topk_candidates
        return _limits(model.num_classes, model.test_score_thresh, limit)
    if hasattr(model, "proposal_generator"):
        return _limits(1, 0.0, _max_proposals(model.proposal_generator))
    if hasattr(model, "ins_embed_head"):  # Panoptic-DeepLab: things and stuff share their classes
        classes = _stuff_classes(model)
        return Limits(classes, 0.0, model.top_k, classes)
    if hasattr(model, "sem_seg_head"):
        return Limits(0, 0.0, 1, _stuff_classes(model))
    raise ConfigError(
        f"the meta-architecture is {type(model).__name__}, supported are those of "
        "detectron2.modeling.meta_arch and Panoptic-DeepLab"
    )


def _limits(num_classes: int, score_threshold: float, max_detections: int) -> Limits:
    """Limits without pixel classes; no score is outside 0..1."""
    return Limits(num_classes, min(max(score_threshold, 0.0), 1.0), max(max_detections, 1))


def _limits_of_heads(model: Any) -> Limits:
    heads = model.roi_heads
    predictor = heads.box_predictor
    if isinstance(predictor, nn.ModuleList):  # detections come from a cascade's last stage
        predictor = predictor[-1]
    limit = predictor.test_topk_per_image
    if limit < 0:  # all
        limit = heads.num_classes * _max_proposals(model.proposal_generator)
    return _limits(heads.num_classes, predictor.test_score_thresh, limit)


def _max_proposals(generator: Any) -> int:
    """The highest number of proposals for an image; a negative limit leaves out the worst."""
    limit: int = generator.post_nms_topk[False]
    return limit if limit >= 0 else len(generator.in_features) * generator.pre_nms_topk[False]


def _stuff_classes(model: Any) -> int:
    if not hasattr(model, "sem_seg_head"):
        return 0
    head = model.sem_seg_head
    predictor = getattr(head, "coarse_sem_seg_head", head).predictor  # PointRend refines it
    return int(predictor.out_channels)
