"""Reports -> samples of the metrics that handler/metrics.yaml declares.

Seconds and bytes, as Prometheus has them. TorchServe's histograms have the fixed buckets of
Prometheus' Java client, 0.005 to 10, which suit seconds, and counts of up to 10.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from handler.errors import CODES
from handler.telemetry.forwards import Forward
from handler.telemetry.memory import Memory
from handler.telemetry.reports import OK, BatchReport, RequestReport

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
