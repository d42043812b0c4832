"""Reports of requests, and a stand-in for the server's metrics."""

from dataclasses import replace
from typing import Any

from d2serve.detector.base import ForwardPass
from d2serve.serving.telemetry import (
    BatchReport,
    ImageReport,
    Received,
    RequestReport,
    StageTimes,
)

GOOD = RequestReport(
    received=Received("id-1", "image/jpeg", 1000),
    status=200,
    code="ok",
    message="",
    media_type="application/json",
    size=2000,
    images=(ImageReport(40, 30, instances=3), ImageReport(code="bad_request")),
    options={"masks": "none"},
    times=StageTimes(decode_ms=1.5, forward_ms=20.25, encode_ms=2.5, batch=2),
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
)
FORWARD_PASSES = (
    ForwardPass(4, 9.0, failed=True, out_of_memory=True),
    ForwardPass(2, 20.25),
    ForwardPass(2, 10.0, failed=True),
    ForwardPass(1, 5.0, failed=True, out_of_memory=True),
)


def batch_of(*requests: RequestReport, **changes: Any) -> BatchReport:
    return replace(BatchReport(requests, FORWARD_PASSES, elapsed_ms=250.0), **changes)


class Metric:
    """Records its values with the values of these labels."""

    def __init__(self, *dimension_names: str) -> None:
        self.dimension_names = dimension_names
        self.recorded: list[tuple[float, list[str]]] = []

    def add_or_update(self, value: float, dimension_values: list[str]) -> None:
        self.recorded.append((value, dimension_values))
