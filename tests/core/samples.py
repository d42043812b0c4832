"""Reports of requests, and stand-ins for metrics systems."""

from collections.abc import Iterable
from dataclasses import replace

from d2serve.detector.base import ForwardPass
from d2serve.serving.metrics import Sample
from d2serve.serving.telemetry import ImageReport, Received, RequestReport, StageTimes

GOOD = RequestReport(
    received=Received("id-1", "image/jpeg", 1000),
    status=200,
    code="ok",
    message="",
    media_type="application/json",
    size=2000,
    images=(ImageReport(40, 30, instances=3), ImageReport(code="bad_request")),
    options={"masks": "none"},
    times=StageTimes(decode_ms=1.5, queue_ms=4.0, forward_ms=20.25, encode_ms=2.5, batch=2),
    elapsed_ms=31.255,
)
BAD = replace(
    GOOD,
    received=Received("id-2", "other", 7),
    status=415,
    code="unsupported_media_type",
    message="not an image",
    images=(),
    options={},
    times=StageTimes(decode_ms=0.5),
    elapsed_ms=0.75,
)
FORWARD_PASSES = (
    ForwardPass(4, 9.0, failed=True, out_of_memory=True),
    ForwardPass(2, 20.25),
    ForwardPass(2, 10.0, failed=True),
    ForwardPass(1, 5.0, failed=True, out_of_memory=True),
)
# Values and labels of the samples of one metric.
Values = list[tuple[float, dict[str, str]]]


def values(samples: Iterable[Sample], name: str) -> Values:
    return [(sample.value, dict(sample.labels)) for sample in samples if sample.name == name]


class RecordingSink:
    """Records the samples that are published."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def publish(self, samples: Iterable[Sample]) -> None:
        self.samples.extend(samples)

    def values(self, name: str) -> Values:
        return values(self.samples, f"d2serve_{name}")


class Metric:
    """Records its values with the values of these labels."""

    def __init__(self, *dimension_names: str) -> None:
        self.dimension_names = dimension_names
        self.recorded: list[tuple[float, list[str]]] = []

    def add_or_update(self, value: float, dimension_values: list[str]) -> None:
        self.recorded.append((value, dimension_values))
