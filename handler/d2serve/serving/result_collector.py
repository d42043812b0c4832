"""Collect the detector's results of all requests of a batch."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from d2serve.detections import Detections
from d2serve.detector.base import Failure, InferenceResult, PreprocessedImage
from d2serve.errors import RequestError, internal, out_of_memory
from d2serve.serving.requests import (
    DetectedRequest,
    FailedRequest,
    FinishedRequest,
    PreprocessedRequest,
    ReadyRequest,
)

NOT_RUN = InferenceResult(Failure.ERROR, forward_ms=0.0, batch=0)


@dataclass(frozen=True)
class _PendingRequest:
    """A request whose results are incomplete.

    Attributes:
        request: the request.
        submitted: positions of the images that enter the network.
        results: the results so far, by position.
    """

    request: PreprocessedRequest
    submitted: tuple[int, ...]
    results: dict[int, InferenceResult] = field(default_factory=dict)


class ResultCollector:
    """Submits the images of all requests of a batch, and assigns the results to the requests.

    Args:
        requests: the requests of the batch, each consumed when its images are needed.
    """

    def __init__(self, requests: Iterable[ReadyRequest]) -> None:
        self._requests = enumerate(requests)
        # Of each submitted image: the index of its request, and its position there.
        self._origins: list[tuple[int, int]] = []
        self._pending: dict[int, _PendingRequest] = {}
        self._finished: deque[tuple[int, FinishedRequest]] = deque()

    def images(self) -> Iterator[PreprocessedImage]:
        """Yield the images of all requests in order."""
        for index, request in self._requests:
            if isinstance(request, FailedRequest):
                self._finished.append((index, request))
                continue
            images = {
                position: image
                for position, image in enumerate(request.images)
                if isinstance(image, PreprocessedImage)
            }
            self._pending[index] = _PendingRequest(request, tuple(images))
            self._finish_if_complete(index)
            for position, image in images.items():
                self._origins.append((index, position))
                yield image

    def complete(self, number: int, result: InferenceResult) -> None:
        """Record the result of the image that was yielded at this position, from 0."""
        index, position = self._origins[number]
        self._pending[index].results[position] = result
        self._finish_if_complete(index)

    def fail_pending(self) -> None:
        """Mark every image without a result as failed, including images not yet submitted."""
        for _ in self.images():
            continue
        for index, pending in list(self._pending.items()):
            for position in pending.submitted:
                pending.results.setdefault(position, NOT_RUN)
            self._finish_if_complete(index)

    def finished(self) -> Iterator[tuple[int, FinishedRequest]]:
        """Yield each request that has finished since the last call, with its index."""
        while self._finished:
            yield self._finished.popleft()

    def _finish_if_complete(self, index: int) -> None:
        pending = self._pending[index]
        if len(pending.results) == len(pending.submitted):
            self._finished.append((index, _detected(self._pending.pop(index))))


def _detected(pending: _PendingRequest) -> DetectedRequest:
    decoded, results = pending.request.decoded, pending.results
    detections = (
        image if isinstance(image, RequestError) else _detections(results[position])
        for position, image in enumerate(pending.request.images)
    )
    times = replace(
        decoded.times,
        forward_ms=max((result.forward_ms for result in results.values()), default=0.0),
        batch=max((result.batch for result in results.values()), default=0),
    )
    return DetectedRequest(decoded, tuple(detections), times)


def _detections(result: InferenceResult) -> Detections | RequestError:
    if result.output is Failure.OUT_OF_MEMORY:
        return out_of_memory()
    return internal() if isinstance(result.output, Failure) else result.output
