"""Metrics of requests, forward passes and memory, for any metrics system."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal, Protocol, TypeAlias

from d2serve.detector.base import ForwardPass
from d2serve.errors import CODES
from d2serve.serving.telemetry import OK, Memory, RequestReport

MILLISECONDS = 1000.0
Kind: TypeAlias = Literal["counter", "histogram", "gauge"]
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Declaration:
    """A metric.

    Attributes:
        name: in Prometheus's conventions.
        kind: a counter is added to, a histogram observes, a gauge is set.
        description: for people, without a full stop.
        labels: names of its labels besides the model's name.
        buckets: upper bounds of a histogram's buckets.
    """

    name: str
    kind: Kind
    description: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS = (
    Declaration("d2serve_requests_total", "counter", "Responses", ("Status", "Code")),
    Declaration(
        "d2serve_request_seconds", "histogram", "Time from arrival to response", (), SECONDS
    ),
    Declaration("d2serve_stage_seconds", "histogram", "Time of each stage", ("Stage",), SECONDS),
    Declaration("d2serve_images_total", "counter", "Images by result", ("Code",)),
    Declaration("d2serve_pixels_total", "counter", "Pixels of decoded images"),
    Declaration("d2serve_instances_total", "counter", "Instances found by the network"),
    Declaration("d2serve_forward_images", "histogram", "Images in each forward pass", (), IMAGES),
    Declaration("d2serve_queued_images", "gauge", "Images that wait or are being processed"),
    Declaration(
        "d2serve_out_of_memory_splits_total", "counter", "Batches split for lack of memory"
    ),
    Declaration("d2serve_worker_starts_total", "counter", "Loaded models"),
    Declaration(
        "d2serve_worker_memory_bytes", "gauge", "Resident memory of the process", ("WorkerName",)
    ),
    Declaration(
        "d2serve_device_memory_bytes", "gauge", "Memory of the GPU", ("WorkerName", "Kind")
    ),
)


@dataclass(frozen=True)
class Sample:
    """An increment of a counter, an observation of a histogram, or the value of a gauge.

    The labels ModelName and WorkerName are added by the sink.
    """

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


class MetricsSink(Protocol):
    """Publishes samples in a metrics system."""

    def publish(self, samples: Iterable[Sample]) -> None:
        """Publish samples; may be called from any thread."""
        ...


class NoMetrics:
    """Drops all samples."""

    def publish(self, samples: Iterable[Sample]) -> None:
        """Drop the samples."""


NO_METRICS: MetricsSink = NoMetrics()


def start_samples() -> Iterator[Sample]:
    """Samples of a process that has loaded its model.

    Counters start at 0 instead of being absent, so that Prometheus sees their first increase.
    """
    yield Sample("d2serve_worker_starts_total", 1)
    yield Sample("d2serve_out_of_memory_splits_total", 0)
    for status, code in ((HTTPStatus.OK, OK), *CODES):
        yield _responses(status, code, 0)


def request_samples(report: RequestReport, queued: Callable[[], int]) -> Iterator[Sample]:
    """Samples of one request; its forward passes have samples of their own.

    Args:
        report: the request.
        queued: returns the number of queued images; called when the samples are published, so that
            the last published value is the current one.
    """
    yield Sample("d2serve_queued_images", queued())
    yield _responses(report.status, report.code, 1)
    yield Sample("d2serve_request_seconds", _seconds(report.elapsed_ms))
    for stage, elapsed_ms in report.times.stages().items():
        if elapsed_ms and stage != "forward":
            yield _stage(stage, elapsed_ms)
    for code, count in Counter(image.code for image in report.images).items():
        yield Sample("d2serve_images_total", count, {"Code": code})
    if report.images:
        pixels = sum(image.width * image.height for image in report.images)
        yield Sample("d2serve_pixels_total", pixels)
        yield Sample("d2serve_instances_total", sum(image.instances for image in report.images))


def forward_samples(passes: Iterable[ForwardPass], queued: Callable[[], int]) -> Iterator[Sample]:
    """Samples of forward passes; see `request_samples`."""
    yield Sample("d2serve_queued_images", queued())
    for each in passes:
        if not each.failed:
            yield _stage("forward", each.elapsed_ms)
            yield Sample("d2serve_forward_images", each.images)
        elif each.out_of_memory and each.images > 1:
            yield Sample("d2serve_out_of_memory_splits_total", 1)


def memory_samples(memory: Memory) -> Iterator[Sample]:
    """Samples of the memory of this process in bytes."""
    if memory.resident is not None:
        yield Sample("d2serve_worker_memory_bytes", memory.resident)
    for kind, size in memory.device.items():
        yield Sample("d2serve_device_memory_bytes", size, {"Kind": kind})


def _responses(status: int, code: str, count: int) -> Sample:
    labels = {"Status": str(int(status)), "Code": code}
    return Sample("d2serve_requests_total", count, labels)


def _stage(name: str, elapsed_ms: float) -> Sample:
    return Sample("d2serve_stage_seconds", _seconds(elapsed_ms), {"Stage": name})


def _seconds(elapsed_ms: float) -> float:
    return round(elapsed_ms / MILLISECONDS, 6)
