"""Metrics of requests, forward passes and memory, published for Prometheus."""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

import torch

from d2serve.detector.base import ForwardLog, ForwardPass
from d2serve.errors import CODES
from d2serve.serving.request_log import log_requests
from d2serve.serving.telemetry import OK, BatchReport, Memory, RequestReport, read_memory

logger = logging.getLogger(__name__)
MILLISECONDS = 1000.0
# Prometheus scrapes every 15 to 60 seconds.
MEMORY_INTERVAL_S = 10.0


@dataclass(frozen=True)
class Sample:
    """An increment of a counter, an observation of a histogram, or the value of a gauge."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


class DeclaredMetric(Protocol):
    """A metric of the server, with the interface of TorchServe's metrics cache."""

    @property
    def dimension_names(self) -> Sequence[str]:
        """Names of its labels, in the order of their values."""
        ...

    def add_or_update(self, value: float, dimension_values: list[str]) -> None:
        """Add to a counter, observe in a histogram, or set a gauge."""
        ...


class Publisher:
    """Publishes samples of the metrics that the server declares.

    Each sample is a line in the server's log, so samples without a reader are dropped.

    Args:
        declared: the server's metrics, by name.
        model_name: the value of the label `ModelName`.
    """

    def __init__(self, declared: Mapping[str, DeclaredMetric], model_name: str) -> None:
        self.declared = dict(declared)
        self.common = {"ModelName": model_name, "Level": "Model"}

    def publish(self, samples: Iterable[Sample]) -> None:
        """Publish each sample with the labels that its metric declares."""
        for sample in samples:
            metric = self.declared.get(sample.name)
            if metric is not None:
                self._publish(sample, metric)

    def _publish(self, sample: Sample, metric: DeclaredMetric) -> None:
        labels = {**self.common, **sample.labels}
        unknown = [name for name in metric.dimension_names if name not in labels]
        if unknown:
            logger.warning(
                "metric %s is not published: its declared dimensions are %s, accepted are %s",
                *(sample.name, ", ".join(metric.dimension_names), ", ".join(labels)),
            )
            del self.declared[sample.name]
            return
        metric.add_or_update(sample.value, [labels[name] for name in metric.dimension_names])


@dataclass
class Reporter:
    """Publishes metrics and writes the request log.

    Attributes:
        publisher: publishes the samples.
        forward_passes: the detector's log.
        device: the network's device, whose memory is published.
        model_name: for the log.
        logs_requests: whether the log has a line for each request.
    """

    publisher: Publisher
    forward_passes: ForwardLog
    device: torch.device
    model_name: str
    logs_requests: bool
    _memory_due_s: float = field(default=0.0, init=False)

    def report_start(self) -> None:
        """Report that the worker has loaded its model and is warm."""
        # The forward passes so far were not requested by clients.
        self.forward_passes.take()
        self.publisher.publish(start_samples())

    def report_batch(
        self, requests: Sequence[RequestReport], elapsed_ms: float, worker: str
    ) -> None:
        """Report a batch whose responses are ready; raises no errors.

        Args:
            requests: the reports of its requests.
            elapsed_ms: time from the batch's arrival in milliseconds.
            worker: the worker's name.
        """
        batch = BatchReport(tuple(requests), self.forward_passes.take(), elapsed_ms)
        try:
            self._report(batch, worker)
        except Exception:  # the responses are valid and must be sent
            logger.exception("a batch could not be reported")

    def _report(self, batch: BatchReport, worker: str) -> None:
        self.publisher.publish(batch_samples(batch))
        if self.logs_requests:
            log_requests(batch, self.model_name)
        if time.monotonic() >= self._memory_due_s:
            self._memory_due_s = time.monotonic() + MEMORY_INTERVAL_S
            self.publisher.publish(memory_samples(read_memory(self.device), worker))


def start_samples() -> Iterator[Sample]:
    """Samples of a worker that has loaded its model.

    Counters start at 0 instead of being absent, so that Prometheus sees their first increase.
    """
    yield Sample("d2serve_worker_starts_total", 1)
    yield Sample("d2serve_out_of_memory_splits_total", 0)
    for status, code in ((HTTPStatus.OK, OK), *CODES):
        yield _responses(status, code, 0)


def batch_samples(batch: BatchReport) -> Iterator[Sample]:
    """Samples of one batch; equal responses are added up, because each sample is a log line."""
    yield Sample("d2serve_batch_seconds", _seconds(batch.elapsed_ms))
    yield Sample("d2serve_batch_requests", len(batch.requests))
    responses = Counter((request.status, request.code) for request in batch.requests)
    for (status, code), count in responses.items():
        yield _responses(status, code, count)
    for request in batch.requests:
        yield from _stages(request)
    yield from _images(batch)
    for forward_pass in batch.forward_passes:
        yield from _forward_pass(forward_pass)


def memory_samples(memory: Memory, worker: str) -> Iterator[Sample]:
    """Samples of one worker's memory in bytes."""
    labels = {"WorkerName": worker}
    if memory.resident is not None:
        yield Sample("d2serve_worker_memory_bytes", memory.resident, labels)
    for kind, size in memory.device.items():
        yield Sample("d2serve_device_memory_bytes", size, {**labels, "Kind": kind})


def _responses(status: int, code: str, count: int) -> Sample:
    labels = {"Status": str(int(status)), "Code": code}
    return Sample("d2serve_requests_total", count, labels)


def _stages(request: RequestReport) -> Iterator[Sample]:
    """Decoding and encoding; requests share forward passes, which have samples of their own."""
    if request.times.decode_ms:
        yield _stage("decode", request.times.decode_ms)
    if request.times.encode_ms:
        yield _stage("encode", request.times.encode_ms)


def _stage(name: str, elapsed_ms: float) -> Sample:
    return Sample("d2serve_stage_seconds", _seconds(elapsed_ms), {"Stage": name})


def _images(batch: BatchReport) -> Iterator[Sample]:
    images = [image for request in batch.requests for image in request.images]
    for code, count in Counter(image.code for image in images).items():
        yield Sample("d2serve_images_total", count, {"Code": code})
    if images:
        pixels = sum(image.width * image.height for image in images)
        yield Sample("d2serve_pixels_total", pixels)
        yield Sample("d2serve_instances_total", sum(image.instances for image in images))


def _forward_pass(forward_pass: ForwardPass) -> Iterator[Sample]:
    if not forward_pass.failed:
        yield _stage("forward", forward_pass.elapsed_ms)
        yield Sample("d2serve_forward_images", forward_pass.images)
    elif forward_pass.out_of_memory and forward_pass.images > 1:
        yield Sample("d2serve_out_of_memory_splits_total", 1)


def _seconds(elapsed_ms: float) -> float:
    return round(elapsed_ms / MILLISECONDS, 6)
