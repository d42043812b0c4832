"""The metrics and log lines of each batch."""

import json
import logging

import pytest
import torch

from d2serve.detector.base import ForwardLog, ForwardPass
from d2serve.serving.metrics import MEMORY_INTERVAL_S, Publisher, Reporter
from tests.core.samples import BAD, GOOD, Metric

CPU = torch.device("cpu")


def reporter_of(*, logs_requests: bool = True, **declared: Metric) -> Reporter:
    publisher = Publisher({f"d2serve_{name}": metric for name, metric in declared.items()}, "m")
    return Reporter(publisher, ForwardLog(), CPU, "m", logs_requests)


def test_batch_is_published_with_its_forward_passes() -> None:
    images, sizes = Metric(), Metric()
    reporter = reporter_of(forward_images=images, batch_requests=sizes)
    reporter.forward_passes.add(ForwardPass(2, 1.0))
    reporter.report_batch([GOOD, BAD], 5.0, "W-9000")
    reporter.forward_passes.add(ForwardPass(1, 1.0))
    reporter.report_batch([GOOD], 5.0, "W-9000")
    assert images.recorded == [(2, []), (1, [])]
    assert sizes.recorded == [(2, []), (1, [])]


def test_forward_passes_before_the_start_are_not_published() -> None:
    images = Metric()
    reporter = reporter_of(forward_images=images)
    reporter.forward_passes.add(ForwardPass(8, 1.0))
    reporter.report_start()
    reporter.forward_passes.add(ForwardPass(1, 1.0))
    reporter.report_batch([GOOD], 5.0, "W-9000")
    assert images.recorded == [(1, [])]


def test_start_is_published() -> None:
    starts = Metric()
    reporter_of(worker_starts_total=starts).report_start()
    assert starts.recorded == [(1, [])]


@pytest.mark.parametrize("logs_requests", [True, False])
def test_requests_are_logged_if_enabled(
    logs_requests: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        reporter_of(logs_requests=logs_requests).report_batch([GOOD, BAD], 5.0, "W-9000")
    ids = [json.loads(line)["id"] for line in caplog.messages]
    assert ids == (["id-1", "id-2"] if logs_requests else [])


def test_memory_is_published_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("d2serve.serving.metrics.time.monotonic", lambda: now[0])
    resident = Metric("WorkerName")
    reporter = reporter_of(worker_memory_bytes=resident)
    for at in (100.0, 100.1, 100.0 + MEMORY_INTERVAL_S, 100.1 + MEMORY_INTERVAL_S):
        now[0] = at
        reporter.report_batch([GOOD], 5.0, "W-9000")
    assert len(resident.recorded) == 2
    assert {tuple(labels) for _, labels in resident.recorded} == {("W-9000",)}


def test_error_while_reporting_is_logged_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Metric):
        def add_or_update(self, value: float, dimension_values: list[str]) -> None:
            raise OSError("the pipe is closed")

    reporter_of(batch_requests=Broken()).report_batch([GOOD], 5.0, "W-9000")
    assert "the pipe is closed" in caplog.text
