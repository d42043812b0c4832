"""Stand-ins for the network."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from d2serve.detections import Detections, Picture
from d2serve.detector.base import Failure, ForwardLog, Outcome, Prepared
from d2serve.metadata import ModelFacts


def facts(*class_names: str, score_threshold: float = 0.0, max_detections: int = 100) -> ModelFacts:
    """What clients may know of a model with these classes."""
    return ModelFacts("fake", class_names, score_threshold, max_detections)


def detections_of(
    size_hw: tuple[int, int],
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float] | None = None,
    classes: Sequence[int] | None = None,
    mask_side: int | None = 28,
    seed: int = 0,
) -> Detections:
    """Detections with random masks; scores fall from 0.9 where not given."""
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
    """Finds one instance of class 0 in a picture; its score is the first pixel's red value / 255.

    Args:
        fails_on: pictures whose forward fails.
        failure: why it fails.
        finds_class: the class that it finds.
    """

    def __init__(
        self,
        fails_on: Callable[[Picture], bool] = lambda _: False,
        failure: Failure = Failure.FAULT,
        finds_class: int = 0,
    ) -> None:
        self.fails_on = fails_on
        self.failure = failure
        self.finds_class = finds_class
        self.pictures_per_call: list[int] = []
        self.forwards = ForwardLog()

    def prepare(self, picture: Picture) -> Prepared:
        height, width = picture.shape[:2]
        return Prepared(torch.from_numpy(picture).permute(2, 0, 1), (height, width))

    def stream(self, pictures: Iterable[Prepared]) -> Iterator[tuple[int, Outcome]]:
        together = [prepared.image.permute(1, 2, 0).numpy() for prepared in pictures]
        if together:
            self.pictures_per_call.append(len(together))
        for position, picture in enumerate(together):
            found = self.failure if self.fails_on(picture) else self._find(picture)
            yield position, Outcome(found, forward_ms=12.5, batch=len(together))

    def _find(self, picture: Picture) -> Detections:
        height, width = picture.shape[:2]
        return detections_of(
            size_hw=(height, width),
            boxes=[(0.25, 0.5, width - 1, height - 0.5)],
            scores=[float(picture[0, 0, 0]) / 255],
            classes=[self.finds_class],
        )
