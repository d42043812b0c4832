"""Stage times and the memory of a process."""

import os

import psutil
import pytest
import torch

from d2serve.serving import telemetry
from d2serve.serving.telemetry import StageTimes, read_memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        pytest.param(
            StageTimes(decode_ms=0.0),
            'decode;dur=0.00, queue;dur=0.00, forward;dur=0.00, encode;dur=0.00, batch;desc="0"',
            id="no stage",
        ),
        pytest.param(
            StageTimes(1.234, queue_ms=0.5, forward_ms=1234.5, encode_ms=0.006, batch=8),
            'decode;dur=1.23, queue;dur=0.50, forward;dur=1234.50, encode;dur=0.01, batch;desc="8"',
            id="all stages",
        ),
    ],
)
def test_server_timing_lists_the_stages_in_milliseconds(times: StageTimes, expected: str) -> None:
    assert times.server_timing() == expected


@pytest.mark.skipif(not telemetry.STATM.exists(), reason="needs Linux")
def test_resident_memory_equals_that_of_psutil() -> None:
    memory = read_memory(CPU)
    assert memory.resident == pytest.approx(psutil.Process(os.getpid()).memory_info().rss, rel=0.05)
    assert memory.device == {}


def test_resident_memory_is_unknown_on_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "STATM", telemetry.STATM / "nowhere")
    assert read_memory(CPU).resident is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_memory_of_a_gpu() -> None:
    device = torch.device("cuda", 0)
    before = read_memory(device).device
    kept = torch.zeros(2**22, device=device)
    after = read_memory(device).device
    assert after["allocated"] - before["allocated"] >= kept.nbytes
    assert after["reserved"] >= after["allocated"]
    assert 0 < after["free"] < torch.cuda.get_device_properties(device).total_memory
