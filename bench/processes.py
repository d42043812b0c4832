"""CPU time and resident memory of processes, sampled while something else is measured."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

WORKER, JAVA, PROXY, LAUNCHER = "worker", "TorchServe", "reverse proxy", "launcher"
ROLES = (JAVA, WORKER, PROXY, LAUNCHER)
WORKER_SCRIPT = "model_service_worker.py"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
Members = Callable[[], Iterable[psutil.Process]]


@dataclass(frozen=True)
class Usage:
    """Of one process: its role, resident bytes, and seconds of CPU by thread id."""

    role: str
    resident: int
    threads_s: Mapping[int, float]


@dataclass(frozen=True)
class Snapshot:
    """At `moment`, in seconds since 1970: CPU seconds of the machine, and usage by process id."""

    moment: float
    machine_s: float
    processes: Mapping[int, Usage]

    def resident(self, role: str | None = None) -> int:
        """Bytes of all processes, or of those of a role."""
        usages = self.processes.values()
        return sum(each.resident for each in usages if role in (None, each.role))


@dataclass(frozen=True)
class CpuUse:
    """Busy cores in a window.

    Attributes:
        workers, frontend, machine: of all workers, of the server's other processes, of everything.
        worker_thread: of each worker's busiest thread, the mean; near 1 in a saturated worker.
        frontend_thread: of the frontend's busiest thread.
    """

    workers: float
    frontend: float
    machine: float
    worker_thread: float
    frontend_thread: float


@contextmanager
def sampling(members: Members, every_s: float) -> Iterator[list[Snapshot]]:
    """Take a snapshot now and then one every `every_s` seconds, while the block runs."""
    snapshots = [_snapshot(members())]
    done = threading.Event()

    def sample() -> None:
        while not done.wait(every_s):
            snapshots.append(_snapshot(members()))

    thread = threading.Thread(target=sample, name="sampling", daemon=True)
    thread.start()
    try:
        yield snapshots
    finally:
        done.set()
        thread.join()


def family_of(process: int | None) -> list[psutil.Process]:
    """A process and its current descendants."""
    with suppress(psutil.NoSuchProcess):
        if process is not None:
            parent = psutil.Process(process)
            return [parent, *parent.children(recursive=True)]
    return []


def listener_at(url: str) -> int | None:
    """The process of this machine that listens at a URL; None where that is unknown."""
    parts = urlsplit(url)
    with suppress(psutil.AccessDenied):
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.laddr[1:] == (parts.port or 80,):
                return connection.pid if parts.hostname in LOOPBACK_HOSTS else None
    return None


def role_of(command: Sequence[str]) -> str:
    """The role of a process of TorchServe, from its command line."""
    if any(word.endswith(WORKER_SCRIPT) for word in command):
        return WORKER
    if any("torchserve.proxy" in word for word in command):
        return PROXY
    return JAVA if command and Path(command[0]).name == "java" else LAUNCHER


def cpu_use(snapshots: Sequence[Snapshot], began_at: float, seconds: float) -> CpuUse | None:
    """CPU use in a window; None where fewer than two snapshots lie in it."""
    within = [each for each in snapshots if began_at <= each.moment <= began_at + seconds]
    if len(within) < 2:
        return None
    first, last = within[0], within[-1]
    elapsed = last.moment - first.moment
    busy: dict[bool, list[list[float]]] = {True: [], False: []}
    for process, usage in last.processes.items():
        before = first.processes[process].threads_s if process in first.processes else {}
        used = [(now - before.get(thread, 0.0)) / elapsed for thread, now in usage.threads_s.items()]
        busy[usage.role == WORKER].append(used)
    busiest = {role: [max(used, default=0.0) for used in each] for role, each in busy.items()}
    return CpuUse(
        workers=sum(map(sum, busy[True])),
        frontend=sum(map(sum, busy[False])),
        machine=(last.machine_s - first.machine_s) / elapsed,
        worker_thread=sum(busiest[True]) / max(1, len(busiest[True])),
        frontend_thread=max(busiest[False], default=0.0),
    )


def _snapshot(processes: Iterable[psutil.Process]) -> Snapshot:
    machine = psutil.cpu_times()
    idle = machine.idle + getattr(machine, "iowait", 0.0)
    # The time of guests is part of `user`.
    guests = getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0)
    usages = {}
    for process in processes:
        # A process may have ended; macOS shows the threads of our own process alone.
        with suppress(psutil.Error):
            role, resident = role_of(process.cmdline()), process.memory_info().rss
            threads = process.threads()
            threads_s = {each.id: each.user_time + each.system_time for each in threads}
            usages[process.pid] = Usage(role, resident, threads_s)
    return Snapshot(time.time(), sum(machine) - idle - guests, usages)
