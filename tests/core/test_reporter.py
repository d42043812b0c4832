"""What a worker tells after each batch."""

import json
import logging
import os

import psutil
import pytest
import torch

from d2serve.detector.base import Forward, ForwardLog
from d2serve.serving import telemetry as memory
from d2serve.serving.metrics import MEMORY_EVERY_S, Publisher, Reporter
from d2serve.serving.telemetry import read_memory
from tests.core.metric import Metric
from tests.core.samples import BAD, GOOD

CPU = torch.device("cpu")


def reporting(*, logs_requests: bool = True, **declared: Metric) -> Reporter:
    publisher = Publisher({f"d2serve_{name}": metric for name, metric in declared.items()}, "m")
    return Reporter(publisher, ForwardLog(), CPU, "m", logs_requests)


def test_a_batch_is_published_with_the_forwards_since_the_last_one() -> None:
    images, sizes = Metric(), Metric()
    worker = reporting(forward_images=images, batch_requests=sizes)
    worker.forwards.add(Forward(2, 1.0))
    worker.answered([GOOD, BAD], 5.0, "W-9000")
    worker.forwards.add(Forward(1, 1.0))
    worker.answered([GOOD], 5.0, "W-9000")
    assert images.given == [(2, []), (1, [])]
    assert sizes.given == [(2, []), (1, [])]


def test_forwards_before_the_start_are_no_clients() -> None:
    images = Metric()
    worker = reporting(forward_images=images)
    worker.forwards.add(Forward(8, 1.0))
    worker.started()
    worker.forwards.add(Forward(1, 1.0))
    worker.answered([GOOD], 5.0, "W-9000")
    assert images.given == [(1, [])]


def test_a_start_is_published() -> None:
    starts = Metric()
    reporting(worker_starts_total=starts).started()
    assert starts.given == [(1, [])]


@pytest.mark.parametrize("logs_requests", [True, False])
def test_requests_are_logged_where_that_is_asked(
    logs_requests: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        reporting(logs_requests=logs_requests).answered([GOOD, BAD], 5.0, "W-9000")
    ids = [json.loads(line)["id"] for line in caplog.messages]
    assert ids == (["id-1", "id-2"] if logs_requests else [])


def test_memory_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("d2serve.serving.metrics.time.monotonic", lambda: now[0])
    resident = Metric("WorkerName")
    worker = reporting(worker_memory_bytes=resident)
    for at in (100.0, 100.1, 100.0 + MEMORY_EVERY_S, 100.1 + MEMORY_EVERY_S):
        now[0] = at
        worker.answered([GOOD], 5.0, "W-9000")
    assert len(resident.given) == 2
    assert {tuple(labels) for _, labels in resident.given} == {("W-9000",)}


def test_what_cannot_be_told_fails_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Metric):
        def add_or_update(self, value: float, dimension_values: list[str]) -> None:
            raise OSError("the pipe is closed")

    reporting(batch_requests=Broken()).answered([GOOD], 5.0, "W-9000")
    assert "the pipe is closed" in caplog.text


@pytest.mark.skipif(not memory.STATM.exists(), reason="only Linux tells it this way")
def test_resident_memory_is_what_the_system_says() -> None:
    told = read_memory(CPU)
    assert told.resident == pytest.approx(psutil.Process(os.getpid()).memory_info().rss, rel=0.05)
    assert told.device == {}


def test_elsewhere_memory_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "STATM", memory.STATM / "nowhere")
    assert read_memory(CPU).resident is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpus_memory_is_told() -> None:
    device = torch.device("cuda", 0)
    before = read_memory(device).device
    kept = torch.zeros(2**22, device=device)
    after = read_memory(device).device
    assert after["allocated"] - before["allocated"] >= kept.nbytes
    assert after["reserved"] >= after["allocated"]
    assert 0 < after["free"] < torch.cuda.get_device_properties(device).total_memory
