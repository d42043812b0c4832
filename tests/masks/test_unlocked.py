"""Functions of tensors that run without the interpreter lock."""

import inspect
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from d2serve.masks import columns, unlocked
from d2serve.masks.grid_cells import boundary_cells
from tests.masks.instances import random_instances


def add_one(values: Tensor, times: int) -> Tensor:
    for _ in range(times):
        values = values + 1
    return values


def add_up(times: int) -> int:
    total = 0
    for number in range(times):
        total += number
    return total


def not_a_function_of_tensors(values: Tensor) -> list[str]:
    return [*map(str, values.tolist())]


def test_pasting_is_compiled(caplog: pytest.LogCaptureFixture) -> None:
    """Otherwise it would still work, but hold the interpreter lock between its operations."""
    assert isinstance(unlocked._compile(inspect.unwrap(columns._changes)), torch.jit.ScriptFunction)
    assert not caplog.records


def test_another_thread_runs_during_a_call() -> None:
    """Here the interpreter switches threads only where one releases its lock."""
    run = unlocked.unlocked(add_up)
    run(1)
    order: list[str] = []
    gate = threading.Lock()
    gate.acquire()

    def pass_gate() -> None:
        with gate:
            order.append("other thread")

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=pass_gate)
    thread.start()
    sys.setswitchinterval(1000)
    try:
        gate.release()
        run(1_000_000)
        order.append("call")
    finally:
        sys.setswitchinterval(interval)
    thread.join()
    assert order == ["other thread", "call"]


def test_a_function_that_cannot_be_compiled_runs_as_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = unlocked.unlocked(not_a_function_of_tensors)
    with caplog.at_level(logging.WARNING):
        assert run(torch.tensor([1, 2])) == ["1", "2"]
        assert run(torch.tensor([3])) == ["3"]
    [record] = caplog.records
    assert "not_a_function_of_tensors" in record.getMessage()


def test_pasting_without_torchscript_is_equal() -> None:
    for instances in random_instances(600):
        cells = boundary_cells(instances.masks, 0.5 - 1e-4, 0.5 + 1e-4)
        masks, boxes = torch.from_numpy(instances.masks), torch.from_numpy(instances.boxes_xyxy)
        given = (masks, boxes, cells, *instances.size_hw, 0.5, 1e-4, 1 << 16)
        compiled, plain = columns._changes(*given), inspect.unwrap(columns._changes)(*given)
        assert torch.equal(compiled, plain)


def test_one_torch_thread_computes_and_only_there() -> None:
    other = ThreadPoolExecutor(1)
    counts = []

    def record(values: Tensor) -> Tensor:
        counts.append((torch.get_num_threads(), other.submit(torch.get_num_threads).result()))
        return values

    own = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with other:
            unlocked.unlocked(record)(torch.zeros(1))
        assert counts == [(1, 3)]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(own)


def test_threads_compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def compile_slowly(function: object) -> object:
        compiled.append(function)
        threading.Event().wait(0.05)
        return function

    monkeypatch.setattr(unlocked, "_compile", compile_slowly)
    run = unlocked.unlocked(add_one)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: run(torch.zeros(1), 2).item(), range(4)))
    assert results == [2.0] * 4
    assert compiled == [add_one]
