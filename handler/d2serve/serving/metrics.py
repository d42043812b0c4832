"""Reports -> samples of the metrics that metrics.yaml declares."""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

import torch

from d2serve.detector.base import Forward, ForwardLog
from d2serve.errors import CODES
from d2serve.serving.request_log import log_requests
from d2serve.serving.telemetry import OK, BatchReport, Memory, RequestReport, read_memory

MILLISECONDS = 1000.0


@dataclass(frozen=True)
class Sample:
    """What is added to a counter, observed in a histogram, or the value of a gauge."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def start_samples() -> Iterator[Sample]:
    """A worker has loaded its model.

    Counters begin at 0 instead of being absent, so that Prometheus sees their first increase.
    """
    yield Sample("d2serve_worker_starts_total", 1)
    yield Sample("d2serve_out_of_memory_splits_total", 0)
    for status, code in ((HTTPStatus.OK, OK), *CODES):
        yield _responses(status, code, 0)


def batch_samples(batch: BatchReport) -> Iterator[Sample]:
    """One batch; what its requests have in common is added up, for each sample costs a line."""
    yield Sample("d2serve_batch_seconds", _seconds(batch.elapsed_ms))
    yield Sample("d2serve_batch_requests", len(batch.requests))
    answers = Counter((request.status, request.code) for request in batch.requests)
    for (status, code), count in answers.items():
        yield _responses(status, code, count)
    for request in batch.requests:
        yield from _stages(request)
    yield from _pictures(batch)
    for forward in batch.forwards:
        yield from _forward(forward)


def memory_samples(memory: Memory, worker: str) -> Iterator[Sample]:
    """One worker's memory in bytes."""
    labels = {"WorkerName": worker}
    if memory.resident is not None:
        yield Sample("d2serve_worker_memory_bytes", memory.resident, labels)
    for kind, size in memory.device.items():
        yield Sample("d2serve_device_memory_bytes", size, {**labels, "Kind": kind})


def _responses(status: int, code: str, count: int) -> Sample:
    labels = {"Status": str(int(status)), "Code": code}
    return Sample("d2serve_requests_total", count, labels)


def _stages(request: RequestReport) -> Iterator[Sample]:
    """Decoding and encoding; a forward is several requests' and has samples of its own."""
    if request.times.decode_ms:
        yield _stage("decode", request.times.decode_ms)
    if request.times.encode_ms:
        yield _stage("encode", request.times.encode_ms)


def _stage(name: str, elapsed_ms: float) -> Sample:
    return Sample("d2serve_stage_seconds", _seconds(elapsed_ms), {"Stage": name})


def _pictures(batch: BatchReport) -> Iterator[Sample]:
    pictures = [picture for request in batch.requests for picture in request.pictures]
    for code, count in Counter(picture.code for picture in pictures).items():
        yield Sample("d2serve_images_total", count, {"Code": code})
    if pictures:
        pixels = sum(picture.width * picture.height for picture in pictures)
        yield Sample("d2serve_pixels_total", pixels)
        yield Sample("d2serve_instances_total", sum(picture.instances for picture in pictures))


def _forward(forward: Forward) -> Iterator[Sample]:
    if not forward.failed:
        yield _stage("forward", forward.elapsed_ms)
        yield Sample("d2serve_forward_images", forward.images)
    elif forward.out_of_memory and forward.images > 1:
        yield Sample("d2serve_out_of_memory_splits_total", 1)


def _seconds(elapsed_ms: float) -> float:
    return round(elapsed_ms / MILLISECONDS, 6)


logger = logging.getLogger(__name__)


class DeclaredMetric(Protocol):
    """One of the server's metrics, as TorchServe's metrics cache has them."""

    @property
    def dimension_names(self) -> Sequence[str]:
        """Names of its labels, in the order in which it takes their values."""
        ...

    def add_or_update(self, value: float, dimension_values: list[str]) -> None:
        """Adds to a counter, observes in a histogram, sets a gauge."""
        ...


class Publisher:
    """Hands samples on, less those that nobody declared.

    A metric is a line through the server's log, so one that nobody reads would only fill it.

    Args:
        declared: the server's metrics by name.
        model_name: the value of the label `ModelName`.
    """

    def __init__(self, declared: Mapping[str, DeclaredMetric], model_name: str) -> None:
        self.declared = dict(declared)
        self.common = {"ModelName": model_name, "Level": "Model"}

    def publish(self, samples: Iterable[Sample]) -> None:
        """Publishes each with the labels that its declaration names."""
        for sample in samples:
            metric = self.declared.get(sample.name)
            if metric is not None:
                self._publish(sample, metric)

    def _publish(self, sample: Sample, metric: DeclaredMetric) -> None:
        labels = {**self.common, **sample.labels}
        unknown = [name for name in metric.dimension_names if name not in labels]
        if unknown:
            logger.warning(
                "%s is not published: it is declared with the dimensions %s, and has %s",
                *(sample.name, ", ".join(metric.dimension_names), ", ".join(labels)),
            )
            del self.declared[sample.name]
            return
        metric.add_or_update(sample.value, [labels[name] for name in metric.dimension_names])


# Prometheus asks every 15 to 60 seconds.
MEMORY_EVERY_S = 10.0


@dataclass
class Reporter:
    """Publishes metrics and writes the request log.

    Attributes:
        publisher: where samples go.
        forwards: the network's, since the last batch.
        device: whose memory is told.
        model_name: for the log.
        logs_requests: whether there is a line a request.
    """

    publisher: Publisher
    forwards: ForwardLog
    device: torch.device
    model_name: str
    logs_requests: bool
    _memory_due_s: float = field(default=0.0, init=False)

    def started(self) -> None:
        """The worker has loaded its model and is warm."""
        # No client asked for the forwards so far.
        self.forwards.take()
        self.publisher.publish(start_samples())

    def answered(self, requests: Sequence[RequestReport], elapsed_ms: float, worker: str) -> None:
        """A batch is answered, by the worker of that name; raises nothing."""
        batch = BatchReport(tuple(requests), self.forwards.take(), elapsed_ms)
        try:
            self._tell(batch, worker)
        except Exception:  # the answers are good, and have to go out
            logger.exception("a batch was answered, but not reported")

    def _tell(self, batch: BatchReport, worker: str) -> None:
        self.publisher.publish(batch_samples(batch))
        if self.logs_requests:
            log_requests(batch, self.model_name)
        if time.monotonic() >= self._memory_due_s:
            self._memory_due_s = time.monotonic() + MEMORY_EVERY_S
            self.publisher.publish(memory_samples(read_memory(self.device), worker))
