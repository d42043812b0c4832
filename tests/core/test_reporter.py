"""The metrics and log lines of requests and forward passes."""

import json
import logging
import threading
from collections.abc import Iterable

import pytest

from d2serve.detector.base import ForwardPass
from d2serve.serving import reporter as module
from d2serve.serving.metrics import Sample
from d2serve.serving.reporter import CPU, MEMORY_INTERVAL_S, Reporter
from tests.core.requests import BAD, GOOD, pipeline
from tests.core.samples import RecordingSink

TIMEOUT_S = 20


def test_requests_and_forward_passes_are_published() -> None:
    sink = RecordingSink()
    served = pipeline(reporter=Reporter(sink))
    served.run([GOOD["png"], BAD["empty"][0]])
    assert sorted(sink.values("requests_total"), key=str) == [
        (1, {"Status": "200", "Code": "ok"}),
        (1, {"Status": "400", "Code": "bad_request"}),
    ]


def test_forward_passes_are_published_with_the_queue() -> None:
    sink = RecordingSink()
    Reporter(sink).report_forward_passes([ForwardPass(2, 1.0), ForwardPass(1, 1.0)], lambda: 3)
    assert sink.values("forward_images") == [(2, {}), (1, {})]
    assert sink.values("queued_images") == [(3, {})]


def test_start_is_published() -> None:
    sink = RecordingSink()
    Reporter(sink).report_start()
    assert sink.values("worker_starts_total") == [(1, {})]


@pytest.mark.parametrize("logs_requests", [True, False])
def test_requests_are_logged_if_enabled(
    logs_requests: bool, caplog: pytest.LogCaptureFixture
) -> None:
    reporter = Reporter(RecordingSink(), model_name="shapes", logs_requests=logs_requests)
    with caplog.at_level(logging.INFO):
        pipeline(reporter=reporter).run([GOOD["png"], BAD["empty"][0]])
    lines = [json.loads(line) for line in caplog.messages]
    assert sorted(line["status"] for line in lines) == ([200, 400] if logs_requests else [])
    assert all((line["model"], line["id"]) == ("shapes", "request-7") for line in lines)


def test_memory_is_published_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("d2serve.serving.reporter.time.monotonic", lambda: now[0])
    sink = RecordingSink()
    reporter = Reporter(sink)
    for at in (100.0, 100.1, 100.0 + MEMORY_INTERVAL_S, 100.1 + MEMORY_INTERVAL_S):
        now[0] = at
        reporter.report_forward_passes([], lambda: 0)
    assert len(sink.values("worker_memory_bytes")) == 2


class BrokenSink:
    def publish(self, samples: Iterable[Sample]) -> None:
        raise OSError("the pipe is closed")


def test_error_of_the_sink_is_logged_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    served = pipeline(reporter=Reporter(BrokenSink()))
    futures = [served.submit(request) for request in (GOOD["png"], BAD["empty"][0])]
    assert [future.result(TIMEOUT_S).status for future in futures] == [200, 400]
    assert "the pipe is closed" in caplog.text


def test_error_of_the_device_is_logged_and_not_raised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lost(_: object) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(module, "read_memory", lost)
    sink = RecordingSink()
    Reporter(sink).report_forward_passes([ForwardPass(1, 1.0)], lambda: 0)
    assert sink.values("forward_images") == [(1, {})]
    assert "unspecified launch failure" in caplog.text


def test_response_is_sent_without_its_report(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "request_report", lambda *_: 1 // 0)
    sink = RecordingSink()
    served = pipeline(reporter=Reporter(sink))
    futures = [served.submit(request) for request in (GOOD["png"], BAD["empty"][0])]
    assert [future.result(TIMEOUT_S).status for future in futures] == [200, 400]
    assert sink.values("requests_total") == []
    assert "ZeroDivisionError" in caplog.text


class MeetingSink:
    """Records whether two threads were inside it at once."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.leave = threading.Event()

    def publish(self, samples: Iterable[Sample]) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        assert self.leave.wait(TIMEOUT_S)
        self.inside -= 1


def test_one_thread_at_a_time_calls_the_sink(monkeypatch: pytest.MonkeyPatch) -> None:
    sink, waiting = MeetingSink(), threading.Event()
    reporter = Reporter(sink, CPU)
    lock = reporter._lock

    class SignallingLock:
        """Signals that a thread found the lock taken."""

        def __enter__(self) -> None:
            if not lock.acquire(blocking=False):
                waiting.set()
                lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    monkeypatch.setattr(reporter, "_lock", SignallingLock())
    threads = [threading.Thread(target=reporter.report_start) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert waiting.wait(TIMEOUT_S)
    sink.leave.set()
    for thread in threads:
        thread.join()
    assert sink.most == 1
