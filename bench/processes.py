"""Processes of a server: resident memory, sampled while something else runs, and ready workers."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from d2serve.servers.torchserve import proxy
from d2serve.servers.torchserve.launcher.server import Server

WORKER, JAVA, PROXY, LAUNCHER = "worker", "TorchServe", "reverse proxy", "launcher"
ROLES = (JAVA, WORKER, PROXY, LAUNCHER)
WORKER_SCRIPT = "model_service_worker.py"
ASGI_MODULE = "d2serve.servers.asgi.process"


class Usage(NamedTuple):
    """Role and resident bytes of a process."""

    role: str
    resident: int


@dataclass(frozen=True)
class Snapshot:
    """Usage by process id at `moment`, in seconds since 1970."""

    moment: float
    processes: Mapping[int, Usage]

    def resident(self, role: str | None = None) -> int:
        """Bytes of all processes, or of those of a role."""
        usages = self.processes.values()
        return sum(each.resident for each in usages if role in (None, each.role))


@contextmanager
def sampling(
    members: Callable[[], Iterable[psutil.Process]], every_s: float
) -> Iterator[list[Snapshot]]:
    """Take a snapshot now and then one every `every_s` seconds, while the block runs."""
    snapshots = [_snapshot(members())]

    def sample(done: threading.Event) -> None:
        while not done.wait(every_s):
            snapshots.append(_snapshot(members()))

    with in_background(sample):
        yield snapshots


@contextmanager
def in_background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `work` on a thread while the block runs; it returns soon after the event is set."""
    done = threading.Event()
    thread = threading.Thread(target=work, args=(done,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def ready_workers(server: Server) -> set[int]:
    """Process ids from TorchServe's management API; empty while it does not respond."""
    url = f"{server.management_url}/models/{server.model_name}"
    try:
        [model] = httpx.get(url, trust_env=False).raise_for_status().json()
    except httpx.HTTPError:
        return set()
    return {int(each["pid"]) for each in model["workers"] if each["status"] == "READY"}


def role_of(command: Sequence[str]) -> str:
    """The role of a server's process, from its command line."""
    if any(word.endswith(WORKER_SCRIPT) or ASGI_MODULE in word for word in command):
        return WORKER
    if any(proxy.__name__ in word for word in command):
        return PROXY
    return JAVA if command and Path(command[0]).name == "java" else LAUNCHER


def _snapshot(processes: Iterable[psutil.Process]) -> Snapshot:
    usages = {}
    for process in processes:
        # A process may have ended.
        with suppress(psutil.Error):
            usages[process.pid] = Usage(role_of(process.cmdline()), process.memory_info().rss)
    return Snapshot(time.time(), usages)
