"""Threads that run tasks in order of priority."""

import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch

from d2serve.serving.stage_pool import StagePool

TIMEOUT_S = 20
Opened = Callable[..., StagePool]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Opens pools, whose threads end with the test."""
    pools: list[StagePool] = []

    def open_pool(threads: int = 1, may_decode: Callable[[], bool] = lambda: True) -> StagePool:
        pools.append(StagePool(threads, may_decode))
        return pools[-1]

    yield open_pool
    for pool in pools:
        pool.close()


class Gate:
    """A task that keeps its thread busy until the gate is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self.opened.wait(TIMEOUT_S)


class Trace:
    """Tasks that record that they ran."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._recorded = threading.Condition()

    def task(self, name: str) -> Callable[[], None]:
        def task() -> None:
            with self._recorded:
                self.names.append(name)
                self._recorded.notify_all()

        return task

    def wait(self, count: int) -> list[str]:
        """The names of the tasks that ran, once these are `count`."""
        with self._recorded:
            assert self._recorded.wait_for(lambda: len(self.names) >= count, TIMEOUT_S)
            return list(self.names)


def blocked(pool: StagePool) -> Gate:
    """A gate that occupies a thread of the pool."""
    gate = Gate()
    pool.parse(gate, 0)
    assert gate.entered.wait(TIMEOUT_S)
    return gate


def test_tasks_run_by_turn_then_in_order_and_encoding_first(opened: Opened) -> None:
    pool, trace = opened(), Trace()
    gate = blocked(pool)
    pool.decode(trace.task("decode 2"), 2)
    pool.decode(trace.task("decode 1"), 1)
    pool.parse(trace.task("parse 1"), 1)
    pool.decode(trace.task("decode 1 again"), 1)
    pool.parse(trace.task("parse 0"), 0)
    pool.encode(trace.task("encode"))
    gate.opened.set()
    names = ["encode", "parse 0", "decode 1", "parse 1", "decode 1 again", "decode 2"]
    assert trace.wait(len(names)) == names


def test_decoding_waits_until_images_are_needed(opened: Opened) -> None:
    needed = threading.Event()
    pool, trace = opened(may_decode=needed.is_set), Trace()
    pool.decode(trace.task("decode"), 0)
    pool.parse(trace.task("parse"), 5)
    pool.encode(trace.task("encode"))
    assert sorted(trace.wait(2)) == ["encode", "parse"]
    gate = blocked(pool)
    needed.set()
    gate.opened.set()
    assert trace.wait(3)[-1] == "decode"


def test_idle_thread_decodes_once_it_is_woken(opened: Opened) -> None:
    needed, checked = threading.Event(), threading.Event()

    def may_decode() -> bool:
        checked.set()
        return needed.is_set()

    pool, trace = opened(may_decode=may_decode), Trace()
    pool.decode(trace.task("decode"), 0)
    assert checked.wait(TIMEOUT_S)
    needed.set()
    pool.wake()
    assert trace.wait(1) == ["decode"]


def test_end_of_preparation_is_reported_once_no_task_is_left() -> None:
    left: list[int] = []
    prepared = threading.Semaphore(0)

    def on_prepared() -> None:
        left.append(pool.preparing)
        prepared.release()

    pool, trace = StagePool(1, on_prepared=on_prepared), Trace()
    gate = blocked(pool)
    pool.decode(trace.task("decode"), 0)
    assert pool.preparing == 2
    pool.encode(trace.task("encode"))
    assert pool.preparing == 2
    gate.opened.set()
    assert prepared.acquire(timeout=TIMEOUT_S)
    pool.encode(trace.task("encode again"))
    pool.close()
    assert left == [0]


def test_waiting_for_preparation_ends_with_the_last_task(opened: Opened) -> None:
    pool, trace = opened(), Trace()
    pool.wait_until_prepared()
    gate = blocked(pool)
    pool.decode(trace.task("decode"), 0)
    gate.opened.set()
    pool.wait_until_prepared()
    assert (pool.preparing, trace.names) == (0, ["decode"])


def test_announced_tasks_count_as_being_prepared() -> None:
    prepared = threading.Event()
    pool = StagePool(1, on_prepared=prepared.set)
    with pool.more_follow():
        gate = blocked(pool)
        gate.opened.set()
        pool.close()  # the task has ended
        assert pool.preparing == 1
        assert not prepared.is_set()
    assert pool.preparing == 0
    assert prepared.is_set()


def test_close_finishes_all_tasks(opened: Opened) -> None:
    pool, trace = opened(threads=2), Trace()
    gates = [blocked(pool), blocked(pool)]
    for number in range(5):
        pool.parse(trace.task(f"parse {number}"), number)
        pool.decode(trace.task(f"decode {number}"), number)
        pool.encode(trace.task(f"encode {number}"))
    for gate in gates:
        gate.opened.set()
    pool.close()
    assert len(trace.names) == 15


def test_close_waits_for_decoding_that_is_not_needed_yet() -> None:
    """The network may still need time for the images that are decoded already."""
    checked: list[bool] = []

    def may_decode() -> bool:
        if not pool._closed:
            return False
        checked.append(True)
        if len(checked) == 1:
            threading.Thread(target=pool.wake).start()
        return len(checked) > 1

    pool, trace = StagePool(1, may_decode), Trace()
    pool.decode(trace.task("decode"), 0)
    pool.close()
    assert trace.names == ["decode"]


def test_idle_thread_keeps_no_task(opened: Opened) -> None:
    """A task holds its request, body and pixels included."""
    freed = threading.Event()
    pool, trace = opened(), Trace()
    task = trace.task("parse")
    weakref.finalize(task, freed.set)
    pool.parse(task, 0)
    del task
    assert freed.wait(TIMEOUT_S)


@pytest.fixture
def _three_torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_three_torch_threads")
def test_torch_is_single_threaded_in_the_pool_and_unchanged_elsewhere(opened: Opened) -> None:
    pool, meeting, inside = opened(threads=2), threading.Barrier(3), list[int]()

    def record() -> None:
        inside.append(torch.get_num_threads())
        meeting.wait(TIMEOUT_S)

    for _ in range(2):
        pool.parse(record, 0)
    meeting.wait(TIMEOUT_S)
    assert inside == [1, 1]
    assert torch.get_num_threads() == 3
    later: list[int] = []
    other = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert later == [3]


def test_a_thread_runs_the_only_task_that_it_adds(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wakes up no other thread."""
    pool, waking, done = opened(threads=4), list[str](), threading.Event()
    notify = pool._changed.notify

    def record(count: int = 1) -> None:
        waking.append(threading.current_thread().name)
        notify(count)

    def first() -> None:
        waking.append("first")
        pool.decode(second, 0)

    def second() -> None:
        waking.append("second")
        done.set()

    monkeypatch.setattr(pool._changed, "notify", record)
    for _ in range(3):
        done.clear()
        pool.parse(first, 0)
        assert done.wait(TIMEOUT_S)
    assert waking == [threading.current_thread().name, "first", "second"] * 3


def test_all_threads_end_when_one_of_them_has_decoded_the_rest_after_the_close() -> None:
    needed = threading.Event()
    pool = StagePool(3, needed.is_set)

    def first() -> None:
        needed.clear()
        time.sleep(0.05)  # the other threads wait again
        needed.set()

    pool.decode(first, 0)
    pool.decode(lambda: None, 1)
    closing = threading.Thread(target=pool.close, daemon=True)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    needed.set()
    pool.wake()
    closing.join(TIMEOUT_S)
    assert not closing.is_alive()
