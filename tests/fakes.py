"""Stand-ins for models and detectors."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch

from d2serve.detections import Detections, RGBImage
from d2serve.detector.base import Failure, ForwardLog, InferenceResult, PreprocessedImage
from d2serve.metadata import ModelMetadata


def metadata_of(
    *class_names: str, score_threshold: float = 0.0, max_detections: int = 100
) -> ModelMetadata:
    """Metadata of a model with these classes."""
    return ModelMetadata("fake", class_names, score_threshold, max_detections)


def detections_of(
    size_hw: tuple[int, int],
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float] | None = None,
    classes: Sequence[int] | None = None,
    mask_side: int | None = 28,
    seed: int = 0,
) -> Detections:
    """Detections with random masks; by default scores decrease from 0.9."""
    count = len(boxes)
    masks = None
    if mask_side is not None:
        generator = np.random.default_rng(seed)
        masks = generator.random((count, mask_side, mask_side), dtype=np.float32)
    return Detections(
        size_hw=size_hw,
        boxes_xyxy=np.array(boxes, dtype=np.float32).reshape(count, 4),
        scores=np.array(scores or np.linspace(0.9, 0.5, count), dtype=np.float32).reshape(count),
        classes=np.array(classes or [0] * count, dtype=np.int64).reshape(count),
        masks=masks,
    )


class FakeDetector:
    """Detects one instance of class 0 per image; its score is the first pixel's red value / 255.

    Args:
        fails_on: whether the forward pass of an image fails.
        failure: the kind of failure.
        finds_class: the class of the detected instances.
    """

    def __init__(
        self,
        fails_on: Callable[[RGBImage], bool] = lambda _: False,
        failure: Failure = Failure.ERROR,
        finds_class: int = 0,
    ) -> None:
        self.fails_on = fails_on
        self.failure = failure
        self.finds_class = finds_class
        self.images_per_call: list[int] = []
        self.forward_passes = ForwardLog()

    def preprocess(self, image: RGBImage) -> PreprocessedImage:
        height, width = image.shape[:2]
        return PreprocessedImage(torch.from_numpy(image).permute(2, 0, 1), (height, width))

    def batch_key(self, image: PreprocessedImage) -> Hashable:
        return None

    def padded_pixels(self, image: PreprocessedImage) -> int:
        return image.image[0].numel()

    def run(self, images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
        self.images_per_call.append(len(images))
        return [self._result(each.image.permute(1, 2, 0).numpy(), len(images)) for each in images]

    def _result(self, image: RGBImage, batch: int) -> InferenceResult:
        output = self.failure if self.fails_on(image) else self._detect(image)
        return InferenceResult(output, forward_ms=12.5, batch=batch)

    def _detect(self, image: RGBImage) -> Detections:
        height, width = image.shape[:2]
        return detections_of(
            size_hw=(height, width),
            boxes=[(0.25, 0.5, width - 1, height - 0.5)],
            scores=[float(image[0, 0, 0]) / 255],
            classes=[self.finds_class],
        )
