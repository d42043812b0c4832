"""Threads of the serving core: their start never waits for ever."""

import threading
from collections.abc import Callable

import pytest
import torch

from d2serve.serving import threads
from d2serve.serving.batcher import Batcher, BatchLimits
from d2serve.serving.inference import InferenceThread
from d2serve.serving.stage_pool import StagePool
from d2serve.serving.threads import start_thread


def start_inference() -> None:
    InferenceThread(None, Batcher(BatchLimits(1, 1)), None)  # type: ignore[arg-type]


def start_stage_pool() -> None:
    StagePool(1)


def start_one() -> None:
    start_thread("one", 1, lambda: None)


STARTS = pytest.mark.parametrize("start", [start_inference, start_stage_pool, start_one])


def test_a_thread_has_its_own_number_of_torch_threads() -> None:
    counts: list[int] = []
    before = torch.get_num_threads()
    for number in (1, 2):
        start_thread("count", number, lambda: counts.append(torch.get_num_threads())).join(60)
    assert counts == [1, 2]
    assert torch.get_num_threads() == before


@STARTS
def test_a_thread_that_hangs_at_its_start_is_reported(
    monkeypatch: pytest.MonkeyPatch, start: Callable[[], None]
) -> None:
    end = threading.Event()
    monkeypatch.setattr(threads, "START_TIMEOUT_S", 0.2)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: end.wait(60))
    try:
        with pytest.raises(RuntimeError, match=r"did not start within 0\.2 s"):
            start()
    finally:
        end.set()


@STARTS
def test_a_thread_that_fails_at_its_start_is_reported_at_once(
    monkeypatch: pytest.MonkeyPatch, start: Callable[[], None]
) -> None:
    def fail(_: int) -> None:
        raise ValueError("no threads")

    monkeypatch.setattr(torch, "set_num_threads", fail)
    with pytest.raises(RuntimeError, match="could not start: no threads"):
        start()
