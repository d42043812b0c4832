from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from d2serve.masks import rle, runs
from d2serve.masks.runs import in_turn


def meets_another(both: Barrier) -> bool:
    try:
        both.wait(timeout=0.2)
    except BrokenBarrierError:
        return False
    return True


def at_once(*works: Callable[[Barrier], bool]) -> bool:
    """Whether two threads can be at these works at the same time."""
    both = Barrier(2)
    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(work, both) for work in works]
    return any(future.result() for future in futures)


def test_one_thread_at_a_time_whatever_it_does() -> None:
    @in_turn
    def one(both: Barrier) -> bool:
        return meets_another(both)

    other = in_turn(meets_another)
    assert at_once(meets_another, meets_another)
    assert at_once(meets_another, one)
    assert not at_once(one, one)
    assert not at_once(one, other)


def test_work_within_work_and_work_that_fails_let_others_go_on() -> None:
    @in_turn
    def fail() -> None:
        raise ValueError("at work")

    @in_turn
    def outer() -> None:
        fail()

    with pytest.raises(ValueError, match="at work"):
        outer()
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(in_turn(lambda: 7)).result(timeout=10) == 7


@pytest.mark.parametrize(
    ("module", "step"), [(runs, "paste_by_columns"), (rle, "run_lengths")], ids=["paste", "encode"]
)
def test_masks_become_runs_and_text_in_turn(
    module: ModuleType, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, met, real = Barrier(2), [], getattr(module, step)

    def meet(*given: Any) -> Any:
        met.append(meets_another(both))
        return real(*given)

    monkeypatch.setattr(module, step, meet)

    def answer() -> list[dict[str, object]]:
        masks, boxes = np.ones((1, 28, 28), np.float32), np.array([[1, 1, 9, 9]], np.float32)
        return rle.encode_rles(runs.paste_runs(masks, boxes, (30, 40)))

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.submit(answer), threads.submit(answer)
    assert one.result() == other.result()
    assert met == [False, False]
