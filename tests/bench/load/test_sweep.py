"""The order of a sweep, by made-up figures."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.load import sweep as sweep_module
from bench.load.driver import LoadError
from bench.load.figures import Load
from bench.load.servers import Opened, running_already
from bench.load.serving import ServingSettings
from bench.load.sweep import RUNNING_SERVER, Measured, SweepPlan, sweep
from bench.load.traffic import ClosedLoop, OpenLoop, Target, Traffic
from d2serve.servers.torchserve.launcher.ports import Ports
from d2serve.servers.torchserve.launcher.server import ServerError
from tests.bench.load.fake_server import FakeServer, running
from tests.bench.load.made_up import load, setting

ONE, TWO, BROKEN = setting(1), setting(8), setting(64)
PLAN = SweepPlan([ONE, BROKEN, TWO], [1, 8], [0.5, 1.2], 4.0, 1.0)


class Progress:
    """What was told."""

    def __init__(self) -> None:
        self.done = 0
        self.told: list[str] = []

    def __call__(self, now: str, done: int) -> None:
        self.told.append(now)
        self.done += done


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    """A server that answers the first picture."""
    (tmp_path / "a.jpg").write_bytes(b"picture")
    with running(FakeServer()) as fake:
        yield Target(fake.url, [tmp_path / "a.jpg"])


@pytest.fixture
def measured_loads(monkeypatch: pytest.MonkeyPatch) -> list[Traffic]:
    """The traffic that was asked for; the more clients the quicker, and none is sent."""
    asked: list[Traffic] = []

    def measure(_: Target, traffic: Traffic, seconds: float, *, warm_up_seconds: float) -> Load:
        assert (seconds, warm_up_seconds) == (PLAN.seconds, PLAN.warm_up_seconds)
        asked.append(traffic)
        return load(10.0 * traffic.clients if isinstance(traffic, ClosedLoop) else 1.0, 100)

    monkeypatch.setattr(sweep_module, "measure", measure)
    return asked


class Servers:
    """Servers that start, one at a time, but for one of the settings."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.opened: list[ServingSettings | None] = []
        self.closed = 0

    @contextmanager
    def __call__(self, settings: ServingSettings | None) -> Iterator[Opened]:
        assert self.closed == sum(each != BROKEN for each in self.opened)
        self.opened.append(settings)
        if settings == BROKEN:
            raise ServerError("has a worker that died; the end of its log:\n\nline\nline")
        try:
            yield Opened(self.target, None)
        finally:
            self.closed += 1


def test_one_server_a_setting_and_then_the_recommended_ones_open_loop(
    target: Target, measured_loads: list[Traffic]
) -> None:
    servers, measured, progress = Servers(target), Measured(), Progress()
    sweep(PLAN, servers, measured, progress)
    assert servers.opened == [ONE, BROKEN, TWO, ONE]
    assert servers.closed == 3
    closed = [ClosedLoop(1), ClosedLoop(8)]
    assert measured_loads == [*closed, *closed, OpenLoop(40), OpenLoop(96)]
    assert [point.settings for point in measured.points] == [ONE, ONE, TWO, TWO, ONE, ONE]
    assert progress.done == PLAN.total
    assert f"{TWO}: 8 clients" in progress.told


def test_the_server_that_is_open_already_is_kept_for_the_open_loop(
    target: Target, measured_loads: list[Traffic]
) -> None:
    servers = Servers(target)
    sweep(SweepPlan([ONE], [1], [0.5, 1.2], 4.0, 1.0), servers, Measured(), Progress())
    assert measured_loads == [ClosedLoop(1), OpenLoop(5), OpenLoop(12)]
    assert (servers.opened, servers.closed) == ([ONE], 1)


def test_a_server_that_cannot_start_is_told_in_a_line(
    target: Target, measured_loads: list[Traffic]
) -> None:
    measured = Measured()
    sweep(PLAN, Servers(target), measured, Progress())
    assert measured.failures == {str(BROKEN): "has a worker that died; the end of its log:"}
    assert len(measured_loads) == 6


def test_a_generator_that_fails_at_one_setting_leaves_the_others(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: Iterator[Load | None] = iter([load(5, 100), None, *[load(5, 100)] * 9])

    def measure(*_: Any, **__: Any) -> Load:
        found = next(loads)
        if found is None:
            raise LoadError("locust ended")
        return found

    monkeypatch.setattr(sweep_module, "measure", measure)
    measured, progress = Measured(), Progress()
    sweep(SweepPlan([ONE, TWO], [1, 8], [0.5], 4.0, 1.0), Servers(target), measured, progress)
    assert measured.failures == {str(ONE): "locust ended"}
    assert [point.settings for point in measured.points] == [ONE, TWO, TWO, ONE]
    assert progress.done == 5


def test_an_interrupted_sweep_keeps_its_points(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = iter([load(5, 100)])

    def measure(*_: Any, **__: Any) -> Load:
        found = next(loads, None)
        if found is None:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(sweep_module, "measure", measure)
    servers, measured = Servers(target), Measured()
    with pytest.raises(KeyboardInterrupt):
        sweep(PLAN, servers, measured, Progress())
    assert len(measured.points) == servers.closed == 1


def test_where_clients_wait_long_a_point_takes_longer(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[tuple[float, float]] = []

    def measure(_: Target, __: Traffic, seconds: float, *, warm_up_seconds: float) -> Load:
        times.append((seconds, warm_up_seconds))
        return load(2.0, 100)

    monkeypatch.setattr(sweep_module, "measure", measure)
    plan = SweepPlan([ONE], [1, 4, 16], [0.5], 4.0, 1.0)
    sweep(plan, Servers(target), Measured(), Progress())
    # 4 clients share 2 answers a second, so each waits 2 seconds; 16 clients wait 8.
    assert times == [(4, 1), (4, 2), (16, 8), (4, 1)]


@pytest.mark.parametrize("status", [404, 503])
@pytest.mark.usefixtures("measured_loads")
def test_a_server_that_refuses_the_first_picture_is_not_put_under_load(
    tmp_path: Path, status: int
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    with running(FakeServer(lambda _: (status, b"no such model"))) as fake:
        measured = Measured()
        target = Target(fake.url, [tmp_path / "a.jpg"])
        sweep(
            SweepPlan([None], [1], [0.5], 4.0, 1.0), running_already(target), measured, Progress()
        )
    assert measured.points == []
    reason = measured.failures[RUNNING_SERVER]
    assert reason.startswith(f"{fake.url} answered")
    assert reason.endswith(f"with {status}: no such model")


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    url = f"http://127.0.0.1:{Ports.free().inference}/"
    measured = Measured()
    opener = running_already(Target(url, [tmp_path / "a.jpg"]))
    sweep(SweepPlan([None], [1], [0.5], 4.0, 1.0), opener, measured, Progress())
    assert url in measured.failures[RUNNING_SERVER]


def test_errors_of_ours_are_no_failed_setting() -> None:
    def broken(_: ServingSettings | None) -> AbstractContextManager[Opened]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sweep(PLAN, broken, Measured(), Progress())
