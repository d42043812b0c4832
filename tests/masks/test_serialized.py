"""The encoding of masks runs in one thread at a time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import Any

import numpy as np
import pytest

from d2serve.masks import rle
from d2serve.masks.runs import Runs, serialized


def meets_other_thread(both: Barrier) -> bool:
    try:
        both.wait(timeout=0.2)
    except BrokenBarrierError:
        return False
    return True


def run_together(*functions: Callable[[Barrier], bool]) -> bool:
    """Return whether two threads run these functions at the same time."""
    both = Barrier(2)
    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(function, both) for function in functions]
    return any(future.result() for future in futures)


def test_serialized_functions_run_one_at_a_time() -> None:
    @serialized
    def one(both: Barrier) -> bool:
        return meets_other_thread(both)

    other = serialized(meets_other_thread)
    assert run_together(meets_other_thread, meets_other_thread)
    assert run_together(meets_other_thread, one)
    assert not run_together(one, one)
    assert not run_together(one, other)


def test_nested_and_failing_functions_release_the_lock() -> None:
    @serialized
    def fail() -> None:
        raise ValueError("failed")

    @serialized
    def outer() -> None:
        fail()

    with pytest.raises(ValueError, match="failed"):
        outer()
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(serialized(lambda: 7)).result(timeout=10) == 7


def test_encoding_is_serialized(monkeypatch: pytest.MonkeyPatch) -> None:
    both, met, real = Barrier(2), [], rle.run_lengths

    def meet(*arguments: Any) -> Any:
        met.append(meets_other_thread(both))
        return real(*arguments)

    monkeypatch.setattr(rle, "run_lengths", meet)

    def encode() -> list[dict[str, object]]:
        return rle.encode_rles(Runs(np.array([1, 9]), np.array([0, 2]), (30, 40)))

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.submit(encode), threads.submit(encode)
    assert one.result() == other.result()
    assert met == [False, False]
