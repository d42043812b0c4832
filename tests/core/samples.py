"""Reports to make metrics and log lines of."""

from dataclasses import replace
from typing import Any

from d2serve.detector.base import Forward
from d2serve.serving.telemetry import (
    BatchReport,
    PictureReport,
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
    pictures=(PictureReport(40, 30, instances=3), PictureReport(code="bad_request")),
    options={"masks": "none"},
    times=StageTimes(decode_ms=1.5, forward_ms=20.25, encode_ms=2.5, batch=2),
)
BAD = replace(
    GOOD,
    received=Received("id-2", "other", 7),
    status=415,
    code="unsupported_media_type",
    message="it is no image",
    pictures=(),
    options={},
    times=StageTimes(decode_ms=0.5),
)
FORWARDS = (
    Forward(4, 9.0, failed=True, out_of_memory=True),
    Forward(2, 20.25),
    Forward(2, 10.0, failed=True),
    Forward(1, 5.0, failed=True, out_of_memory=True),
)


def batch_of(*requests: RequestReport, **changes: Any) -> BatchReport:
    return replace(BatchReport(requests, FORWARDS, elapsed_ms=250.0), **changes)
