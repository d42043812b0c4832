"""The server process: stopping, and the metrics of the core."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from d2serve.errors import ServerError
from d2serve.servers.asgi import grpc_server
from d2serve.servers.asgi import process as process_module
from d2serve.servers.asgi.config import ServerConfig
from d2serve.servers.asgi.control import Control
from d2serve.servers.asgi.metrics import ServerMetrics
from d2serve.servers.asgi.models import Models, State
from d2serve.servers.asgi.process import POLL_S, SHORTEST_DRAIN_S, ServerProcess
from d2serve.servers.exposure import LOOPBACK
from d2serve.serving.metrics import METRICS, Sample
from d2serve.settings import Settings
from tests import virtual_time
from tests.servers.asgi.fakes import FakePipeline

ADDRESSES = ["10.1.2.3", "11.1.2.3", "192.0.2.7", "192.0.2.8", LOOPBACK]


@pytest.fixture
def process() -> Iterator[ServerProcess]:
    ours, other = socket.socketpair()
    with ours, other:
        server = ServerProcess(ServerConfig({"shapes": "folder"}), Control(ours), "")
        server.models.set_ready({"shapes": FakePipeline()})
        yield server


def test_reverse_proxies_are_not_limited_as_clients() -> None:
    ours, other = socket.socketpair()
    config = ServerConfig({"shapes": "folder"}, forwarded_allow_ips="10.0.0.0/8,192.0.2.7")
    with ours, other:
        server = ServerProcess(config, Control(ours), "")
        clients = server.server.config.http.keywords["clients"]  # type: ignore[union-attr]
    trusted = [address for address in ADDRESSES if clients.of(address).is_trusted]
    assert trusted == ["10.1.2.3", "192.0.2.7"]


def stop(process: ServerProcess, drain_s: float, busy_s: float) -> float:
    """Stop a server whose only request ends after `busy_s`; return the virtual time it took."""
    process.drain_s = drain_s
    process.access.in_progress = 1

    async def run() -> None:
        asyncio.get_running_loop().call_later(
            busy_s, lambda: setattr(process.access, "in_progress", 0)
        )
        process._stop()
        assert process.models.state is State.STOPPING
        while not process.server.should_exit:
            await asyncio.sleep(POLL_S)

    _, took_s = virtual_time.run(run())
    return took_s


def test_a_stopping_server_waits_for_the_requests_in_progress(process: ServerProcess) -> None:
    assert stop(process, drain_s=20, busy_s=8) == pytest.approx(8, abs=2 * POLL_S)


def test_a_stopping_server_waits_no_longer_than_its_settings_allow(
    process: ServerProcess,
) -> None:
    assert stop(process, drain_s=6, busy_s=20) == pytest.approx(6, abs=2 * POLL_S)


def test_an_idle_server_responds_for_a_moment_before_it_stops(process: ServerProcess) -> None:
    assert SHORTEST_DRAIN_S < stop(process, drain_s=20, busy_s=0) < 2 * SHORTEST_DRAIN_S


def test_a_server_that_does_not_wait_stops_at_once(process: ServerProcess) -> None:
    assert stop(process, drain_s=0, busy_s=20) <= POLL_S


def test_more_signals_do_not_cut_off_the_requests_in_progress(
    process: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.drain_s = 600
    process.access.in_progress = 1

    async def run() -> None:
        loop = asyncio.get_running_loop()
        serving = loop.create_task(process.serve(listener))
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            await asyncio.sleep(0.1)
            os.kill(os.getpid(), number)
        await asyncio.sleep(SHORTEST_DRAIN_S)
        assert process.models.state is State.STOPPING
        assert not process.server.should_exit
        process.access.in_progress = 0
        await serving

    monkeypatch.setattr(process, "_load", lambda _: None)
    with socket.create_server((LOOPBACK, 0)) as listener:
        asyncio.run(run())


class FakeGrpc:
    """Replaces the gRPC server, and records the state of the models when it starts."""

    def __init__(self) -> None:
        self.states: list[State] = []
        self.is_stopped = False
        self.on_start: Callable[[], None] = lambda: None

    async def start(self, models: Models, _: object) -> "FakeGrpc":
        self.states.append(models.state)
        self.on_start()
        return self

    async def stop(self, _: float) -> None:
        self.is_stopped = True


class Loading:
    """A server process that has just loaded its model, with a gRPC port.

    Attributes:
        messages: those that the supervisor has received.
    """

    def __init__(self, control: Any) -> None:
        self.messages: list[dict[str, Any]] = []
        control.send = self.messages.append
        self.process = ServerProcess(ServerConfig({"shapes": "folder"}, grpc_port=1), control, "")
        model: Any = SimpleNamespace(settings=Settings(), forward_seconds=lambda: 0.0)
        self.process.pipelines = {"shapes": model}


@pytest.fixture
def grpc(monkeypatch: pytest.MonkeyPatch) -> FakeGrpc:
    fake = FakeGrpc()
    monkeypatch.setattr(grpc_server, "start_grpc", fake.start)
    monkeypatch.setattr(process_module, "start_watchdog", lambda *_: None)
    return fake


@pytest.fixture
def loading() -> Iterator[Loading]:
    ours, other = socket.socketpair()
    with ours, other:
        yield Loading(Control(ours))


def test_a_server_is_ready_when_grpc_is_served(loading: Loading, grpc: FakeGrpc) -> None:
    asyncio.run(loading.process._open())
    assert grpc.states == [State.LOADING]
    assert loading.process.models.state is State.READY
    assert loading.messages == [{"ready": True}]
    assert not grpc.is_stopped


def test_a_server_whose_grpc_port_is_taken_is_never_ready(loading: Loading, grpc: FakeGrpc) -> None:
    def fail() -> None:
        raise ServerError("port 1 cannot be used")

    grpc.on_start = fail
    with pytest.raises(ServerError, match="port 1"):
        asyncio.run(loading.process._open())
    assert loading.process.models.state is State.LOADING
    assert loading.messages == []


def test_a_server_that_is_stopped_while_grpc_starts_stops_it(
    loading: Loading, grpc: FakeGrpc
) -> None:
    grpc.on_start = loading.process._stop
    asyncio.run(loading.process._open())
    assert grpc.is_stopped
    assert loading.messages == []


def test_a_server_that_is_stopping_starts_no_grpc(loading: Loading, grpc: FakeGrpc) -> None:
    async def run() -> None:
        loading.process._stop()
        await loading.process._open()

    asyncio.run(run())
    assert grpc.states == []
    assert loading.messages == []


@pytest.mark.parametrize("is_stopping", [False, True])
def test_a_model_that_cannot_be_loaded_ends_a_process_that_is_not_stopping(
    loading: Loading, monkeypatch: pytest.MonkeyPatch, is_stopping: bool
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    monkeypatch.setattr(process_module, "load_models", fail)

    async def run() -> None:
        if is_stopping:
            loading.process._stop()
        loading.process._load(asyncio.get_running_loop())

    asyncio.run(run())
    assert len(codes) == len(loading.messages) == (0 if is_stopping else 1)
    assert all("cannot be loaded: broken" in each["failed"] for each in loading.messages)


def test_every_metric_of_the_core_is_published_with_its_labels() -> None:
    metrics = ServerMetrics()
    sinks = [metrics.sink("one"), metrics.sink("two")]
    labels = {"Status": "200", "Code": "ok", "Stage": "decode", "Kind": "free"}
    for declaration in METRICS:
        own = {name: labels[name] for name in declaration.labels if name in labels}
        sinks[0].publish([Sample(declaration.name, 2.0, own), Sample(declaration.name, 1.0, own)])
    sinks[1].publish([Sample("d2serve_requests_total", 5.0, {"Status": "503", "Code": "x"})])
    text = metrics.render().decode()
    assert 'd2serve_requests_total{Code="ok",ModelName="one",Status="200"} 3.0' in text
    assert 'd2serve_requests_total{Code="x",ModelName="two",Status="503"} 5.0' in text
    assert 'd2serve_queued_images{ModelName="one"} 1.0' in text
    assert 'd2serve_stage_seconds_sum{ModelName="one",Stage="decode"} 3.0' in text
    assert 'd2serve_stage_seconds_bucket{ModelName="one",Stage="decode",le="1.0"} 1.0' in text
    assert 'WorkerName="asgi"' in text
    for declaration in METRICS:
        assert f"# TYPE {declaration.name} {declaration.kind}" in text
