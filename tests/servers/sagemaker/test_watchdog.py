"""The watchdog of AWS's Ray container, with processes instead of Ray."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest

from d2serve.servers.sagemaker import watchdog
from d2serve.servers.sagemaker.watchdog import hold_lock, is_held, listeners, watch
from tests.environment import clean_environment
from tests.virtual_time import Clock

WITHIN_S = 60
REPLICA = """
import sys, time
from pathlib import Path
from d2serve.servers.sagemaker.watchdog import hold_lock
lock = hold_lock(Path(sys.argv[1]))
print("ready", flush=True)
time.sleep(600)
"""
# An adapter that waits for its requests, as uvicorn does, and an obedient one.
LISTENER = """
import signal, socket, time
signal.signal(signal.SIGTERM, signal.{action})
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
time.sleep(600)
"""
Process: TypeAlias = "subprocess.Popen[str]"
Start: TypeAlias = Callable[..., tuple[Process, str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a script; returns its process and its first line."""
    with ExitStack() as stack:

        def run(code: str, *arguments: str) -> tuple[Process, str]:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", code, *arguments],
                    env=clean_environment(),
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            assert process.stdout
            return process, process.stdout.readline().strip()

        yield run


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "POLL_S", 0.02)
    monkeypatch.setattr(watchdog, "GRACE_S", 0.5)


def test_a_lock_ends_with_its_process(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "lock"
    assert not is_held(path)
    first, second = (start(REPLICA, str(path))[0] for _ in range(2))
    assert is_held(path)
    first.kill()
    first.wait()
    assert is_held(path)
    second.kill()
    second.wait()
    assert not is_held(path)


@pytest.mark.parametrize("action", ["SIG_DFL", "SIG_IGN"])
def test_the_container_ends_without_replicas(tmp_path: Path, start: Start, action: str) -> None:
    path = tmp_path / "lock"
    adapter, port = start(LISTENER.format(action=action))
    bystander, _ = start(LISTENER.format(action=action))
    replica, _ = start(REPLICA, str(path))
    watching = threading.Thread(target=watch, args=(path, int(port), 0.2), daemon=True)
    watching.start()
    watching.join(1)
    assert adapter.poll() is None
    replica.kill()
    ended = -signal.SIGTERM if action == "SIG_DFL" else -signal.SIGKILL
    assert adapter.wait(WITHIN_S) == ended
    watching.join(WITHIN_S)
    assert not watching.is_alive()
    assert bystander.poll() is None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=clock, sleep=time.sleep))
    return clock


def watching(clock: Clock, *arguments: Any) -> threading.Thread:
    """A thread that watches with that clock."""
    thread = threading.Thread(target=watch, args=arguments, daemon=True)
    clock.is_unused = lambda: not thread.is_alive()
    thread.start()
    return thread


def test_the_first_replica_has_more_time(tmp_path: Path, start: Start, clock: Clock) -> None:
    adapter, port = start(LISTENER.format(action="SIG_DFL"))
    thread = watching(clock, tmp_path / "lock", int(port), 5.0, 100.0)
    clock.advance(99)
    assert thread.is_alive()
    assert adapter.poll() is None
    # It never comes.
    clock.advance(2)
    assert adapter.wait(WITHIN_S) == -signal.SIGTERM


def test_a_replacement_in_time_keeps_the_container(
    tmp_path: Path, start: Start, clock: Clock
) -> None:
    path = tmp_path / "lock"
    adapter, port = start(LISTENER.format(action="SIG_DFL"))
    with hold_lock(path):
        thread = watching(clock, path, int(port), 60.0)
        clock.advance(1000)
    clock.advance(59)
    with hold_lock(path):
        clock.advance(1000)
        assert thread.is_alive()
        assert adapter.poll() is None
    clock.advance(61)
    assert adapter.wait(WITHIN_S) == -signal.SIGTERM


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_listeners_of_a_port(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        port = listener.getsockname()[1]
        assert listeners(port) == {os.getpid()}
        with socket.create_connection((address, port)) as client:
            # A connection is not a listener.
            assert listeners(client.getsockname()[1]) == set()
    assert listeners(port) == set()


def test_one_watchdog_runs_and_survives_its_starter(tmp_path: Path, start: Start) -> None:
    """Two starts, each by a process that has ended; the watchdog ends the listener."""
    adapter, port = start(LISTENER.format(action="SIG_DFL"))
    environment = {
        **clean_environment(),
        "TMPDIR": str(tmp_path),
        "D2SERVE_CONTAINER_PORT": port,
        "D2SERVE_WATCHDOG_SECONDS": "0.1",
    }
    command = [sys.executable, "-m", "d2serve.servers.sagemaker.watchdog"]
    with hold_lock(tmp_path / "d2serve-replicas.lock"):
        for _ in range(2):
            subprocess.run(command, env=environment, check=True, timeout=WITHIN_S)
        assert not is_free(tmp_path / "d2serve-replicas.watchdog")
        # Longer than the watchdog waits: it must see the replica each time.
        threading.Event().wait(1.5)
        assert adapter.poll() is None
    assert adapter.wait(WITHIN_S) == -signal.SIGTERM


def is_free(path: Path) -> bool:
    """Return whether no watchdog holds its own lock, after a moment in which one starts."""
    for _ in range(1_200):
        if is_held(path):
            return False
        threading.Event().wait(0.05)
    return True
