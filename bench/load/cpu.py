"""How busy the server's processes and the machine are while they are under load."""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psutil

from bench.repeating import repeatedly

WORKER, FRONTEND = "worker", "frontend"
WORKER_SCRIPT = "model_service_worker.py"
EVERY_S = 0.2
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class CpuUse:
    """Cores kept busy within a window: 1 is one core all the time.

    Attributes:
        workers: all workers together.
        frontend: the server's other processes, TorchServe's Java foremost.
        machine: everything that runs on the machine, what is foreign to the test too.
        worker_thread: the busiest thread of a worker, the mean of all workers: near 1 where a
            worker always has something to do, whatever its other threads get of it.
        frontend_thread: the busiest thread of the frontend.
    """

    workers: float
    frontend: float
    machine: float
    worker_thread: float
    frontend_thread: float


@dataclass(frozen=True)
class Snapshot:
    """Seconds of CPU that were used until a moment.

    Attributes:
        moment: seconds since 1970.
        machine_s: of all processes on the machine.
        threads_s: process id to thread id to seconds.
    """

    moment: float
    machine_s: float
    threads_s: Mapping[int, Mapping[int, float]]


@dataclass
class Samples:
    """Snapshots of one server, in order."""

    roles: Mapping[int, str]
    snapshots: deque[Snapshot] = field(default_factory=deque)

    def use(self, began_at: float, seconds: float) -> CpuUse | None:
        """What a window shows; None where fewer than two snapshots lie in it."""
        within = [each for each in self.snapshots if began_at <= each.moment <= began_at + seconds]
        return _use(self.roles, within[0], within[-1]) if len(within) > 1 else None


@contextmanager
def sampling(server: int | None) -> Iterator[Samples]:
    """Takes snapshots of a server, all its descendants and the machine while the block runs.

    Args:
        server: the id of the process that has started the others; None samples the machine alone.
    """
    family = _family(server)
    samples = Samples({process.pid: _role(process) for process in family})
    with repeatedly(lambda: samples.snapshots.append(_snapshot(family)), EVERY_S):
        yield samples


def server_behind(url: str) -> int | None:
    """The process on this machine that listens at the URL; None where it cannot be told."""
    parts = urlsplit(url)
    port = parts.port or 80
    if parts.hostname not in LOOPBACK_HOSTS:
        return None
    with suppress(psutil.AccessDenied):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,):
                return connection.pid
    return None


def _family(server: int | None) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        if server is not None:
            parent = psutil.Process(server)
            return [parent, *parent.children(recursive=True)]
    return []


def _role(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        if any(each.endswith(WORKER_SCRIPT) for each in process.cmdline()):
            return WORKER
    return FRONTEND


def _snapshot(family: Sequence[psutil.Process]) -> Snapshot:
    machine = psutil.cpu_times()
    idle = machine.idle + getattr(machine, "iowait", 0.0)
    # What guests use is in `user` already.
    guests = getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0)
    threads_s = {}
    for process in family:
        # One that has ended used nothing more; macOS tells the threads of our own process alone.
        with suppress(psutil.Error):
            threads_s[process.pid] = {
                thread.id: thread.user_time + thread.system_time for thread in process.threads()
            }
    return Snapshot(time.time(), sum(machine) - idle - guests, threads_s)


def _use(roles: Mapping[int, str], first: Snapshot, last: Snapshot) -> CpuUse:
    seconds = last.moment - first.moment
    busy: dict[str, list[list[float]]] = {WORKER: [], FRONTEND: []}
    for process, threads in last.threads_s.items():
        before = first.threads_s.get(process, {})
        used = [(total - before.get(thread, 0.0)) / seconds for thread, total in threads.items()]
        busy[roles[process]].append(used)
    # Threads of several processes; without any, there is no busiest one.
    busiest = {role: [max(used, default=0.0) for used in each] for role, each in busy.items()}
    return CpuUse(
        workers=sum(map(sum, busy[WORKER])),
        frontend=sum(map(sum, busy[FRONTEND])),
        machine=(last.machine_s - first.machine_s) / seconds,
        worker_thread=sum(busiest[WORKER]) / max(1, len(busiest[WORKER])),
        frontend_thread=max(busiest[FRONTEND], default=0.0),
    )
