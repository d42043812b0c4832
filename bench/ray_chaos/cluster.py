"""The handle of a Ray cluster that runs in another environment; see `driver.py`."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from d2serve.servers.ray.environment import ENABLE_HAPROXY, ray_environment
from d2serve.servers.ray.private_ray import short_folder
from d2serve.servers.torchserve.launcher.ports import Ports
from tests.environment import clean_environment
from tests.serving.ray_server import RAY_PYTHON

REPOSITORY = Path(__file__).resolve().parents[2]
READY_WITHIN_S, GRACE_S, POLL_S = 180.0, 30.0, 0.25
RUNNING = "RUNNING"
MIN_DRAINING = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"
# Of the folders of runs.
PREFIX = "d2c-"
# Titles of Ray's processes.
REPLICA, PROXY, HAPROXY = "ray::ServeReplica", "ray::ProxyActor", "haproxy"


@dataclass(frozen=True)
class RayCluster:
    """A running cluster.

    Attributes:
        process: the driver.
        url: base URL of Ray Serve.
        home: folder of the cluster's files.
    """

    process: "subprocess.Popen[str]"
    url: str
    home: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def command(self, *command: Any) -> Any:
        """Run a command of the driver, and return its result.

        Raises:
            RuntimeError: the driver has ended.
        """
        assert self.process.stdin
        assert self.process.stdout
        with self._lock:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        if not line:
            log = (self.home / "driver.log").read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"the driver has ended: {log[-2000:]}")
        return json.loads(line)

    def processes(self, title: str) -> list[psutil.Process]:
        """The cluster's processes with a title, or with a program of that name."""
        return [each for each in family_of(self.process.pid) if _is_titled(each, title)]

    def running(self) -> int:
        """The number of replicas that run."""
        return int(self.command("status")["replicas"].get(RUNNING, 0))

    def wait_for_replicas(self, count: int, without: Sequence[psutil.Process] = ()) -> None:
        """Return when `count` replicas run, and processes that have been killed are gone."""
        wait_until(
            lambda: self.running() == count and not any(map(is_alive, without)), READY_WITHIN_S
        )


def wait_until(is_done: Callable[[], bool], within_s: float) -> float:
    """Poll; returns the seconds it took.

    Raises:
        TimeoutError: `within_s` has expired.
    """
    started = time.monotonic()
    while not is_done():
        if time.monotonic() - started > within_s:
            raise TimeoutError(f"not done within {within_s:g} s")
        time.sleep(POLL_S)
    return time.monotonic() - started


def status_of(url: str) -> int:
    """The status of a GET; 0 without a response."""
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code
    except httpx.TransportError:
        return 0


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process exists, and is not a zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family_of(process_id: int) -> list[psutil.Process]:
    """The descendants of a process."""
    try:
        return psutil.Process(process_id).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_titled(process: psutil.Process, title: str) -> bool:
    try:
        program = (process.cmdline() or [""])[0]
    except psutil.Error:
        return False
    return program.startswith(title) or Path(program).name == title


@contextmanager
def running_cluster(
    *,
    nodes: Sequence[int] = (2,),
    has_haproxy: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Iterator[RayCluster]:
    """Run a cluster while the `with` block runs; nothing of it remains.

    Args:
        nodes: number of CPUs of each node.
        has_haproxy: whether HAProxy runs, instead of Ray's default proxy.
        environment: further variables.
    """
    port = Ports.free().inference
    with short_folder(PREFIX) as home:
        variables = ray_environment(home, has_haproxy) | {ENABLE_HAPROXY: str(int(has_haproxy))}
        # As in a cluster, where load balancers have to notice that a replica stops.
        variables.pop(MIN_DRAINING)
        # Holds the address of the current cluster.
        variables["RAY_TMPDIR"] = str(home)
        (home / "ray").mkdir()
        config = {"folder": str(home / "ray"), "port": port, "nodes": list(nodes)}
        with (home / "driver.log").open("wb") as log:
            process = subprocess.Popen(
                [str(RAY_PYTHON), "-m", f"{__package__}.driver", json.dumps(config)],
                cwd=REPOSITORY,
                env={**clean_environment(), **variables, **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        cluster = RayCluster(process, f"http://127.0.0.1:{port}", home)
        try:
            assert process.stdout
            process.stdout.readline()
            yield cluster
        finally:
            _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    """End the driver, which ends the cluster; kill what remains."""
    family = family_of(process.pid)
    assert process.stdin
    with suppress(BrokenPipeError):
        process.stdin.close()
    for each in family:
        if is_alive(each) and each.status() == psutil.STATUS_STOPPED:
            each.kill()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(family, 10)
    for each in alive:
        each.kill()
