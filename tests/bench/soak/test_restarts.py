"""Workers that are killed for real, though they only sleep."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from bench.soak.restarts import NEVER, Restart, killing


class Workers:
    """As TorchServe does: one that died is followed by another, which is ready when it is asked."""

    def __init__(self, count: int, *, replaced: bool = True) -> None:
        self.replaced = replaced
        self.processes = [self._start() for _ in range(count)]
        self.asked = 0

    def ready(self) -> set[int]:
        self.asked += 1
        for index, process in enumerate(self.processes):
            if process.poll() is not None and self.replaced and self.asked % 3 == 0:
                self.processes[index] = self._start()
        return {process.pid for process in self.processes if process.poll() is None}

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


@pytest.fixture
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    made = Workers(**request.param)
    yield made
    for process in made.processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
        process.wait()


@pytest.mark.parametrize("workers", [{"count": 1}, {"count": 2}], indirect=True)
def test_one_is_killed_at_each_moment_and_its_end_noted(workers: Workers) -> None:
    before = workers.ready()
    with killing(workers.ready, [0.0, 0.05]) as restarts:
        while len(restarts) < 2:
            time.sleep(0.01)
    assert all(restart.killed_at < restart.back_at < NEVER for restart in restarts)
    assert len(workers.ready()) == len(before)
    assert workers.ready() != before


@pytest.mark.parametrize("workers", [{"count": 2, "replaced": False}], indirect=True)
def test_one_that_never_comes_back_is_told(workers: Workers) -> None:
    with killing(workers.ready, [0.0]) as restarts:
        while len(workers.ready()) == 2:
            time.sleep(0.01)
    [restart] = restarts
    assert restart.back_at == NEVER
    assert restart.touches(restart.killed_at + 1e6, restart.killed_at + 1e6)


@pytest.mark.parametrize("workers", [{"count": 1}], indirect=True)
def test_nobody_is_killed_before_the_time(workers: Workers) -> None:
    with killing(workers.ready, [60.0]) as restarts:
        pass
    assert (restarts, len(workers.ready())) == ([], 1)


def test_what_overlaps_with_a_restart_touches_it() -> None:
    restart = Restart(10.0, 12.0)
    assert restart.down_s == 2
    times = [(8, 9), (9, 10), (9, 13), (11, 11.5), (12, 15), (12.5, 15)]
    assert [restart.touches(*time) for time in times] == [False, True, True, True, True, False]
