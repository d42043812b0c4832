"""Faults of a cluster under load."""

import io
import threading
from collections.abc import Callable
from contextlib import suppress

import httpx
import psutil
from PIL import Image

from bench.ray_chaos.cluster import (
    HAPROXY,
    PREFIX,
    PROXY,
    REPLICA,
    RayCluster,
    is_alive,
)
from bench.ray_chaos.scenario import (
    Given,
    Outcome,
    args_of,
    back,
    is_well,
    under_load,
)
from bench.ray_chaos.traffic import (
    CLIENTS,
    RIGHT,
    Traffic,
)
from d2serve.servers.ray.private_ray import short_folder
from tests.serving.faults.injection import HELD, faulty_site

# Time after which a replica whose forward pass does not end is replaced.
HANG_TIMEOUT_S = 5


def kill_replica(given: Given, has_haproxy: bool = True) -> Outcome:
    """SIGKILL of one of two replicas."""

    def fault(cluster: RayCluster) -> Callable[[], bool]:
        [victim, _] = cluster.processes(REPLICA)
        victim.kill()
        return back(cluster, [victim])

    required = "no wrong response, none lost, back within 30 s"
    return under_load(given, fault, required, is_well(30), has_haproxy=has_haproxy)


def freeze_replica(given: Given) -> Outcome:
    """SIGSTOP of one of two replicas."""

    def fault(cluster: RayCluster) -> Callable[[], bool]:
        [victim, _] = cluster.processes(REPLICA)
        victim.suspend()
        return back(cluster, [victim])

    required = "no wrong response, replaced within 60 s"
    return under_load(given, fault, required, is_well(60))


def hang(given: Given) -> Outcome:
    """A forward pass that does not end, in one of two replicas."""
    with short_folder(PREFIX) as gate:
        (gate / "sitecustomize.py").write_text(faulty_site(gate))
        (gate / "load").touch()

        def fault(cluster: RayCluster) -> Callable[[], bool]:
            before = cluster.processes(REPLICA)
            _send_endless(cluster)
            return lambda: sum(map(is_alive, before)) == 1 and back(cluster, [])()

        required = f"replaced within {HANG_TIMEOUT_S} + 30 s"
        return under_load(
            given,
            fault,
            required,
            is_well(HANG_TIMEOUT_S + 30),
            args={"forward_timeout_s": HANG_TIMEOUT_S},
            environment={"PYTHONPATH": str(gate)},
        )


def _send_endless(cluster: RayCluster) -> None:
    body = io.BytesIO()
    Image.new("RGB", (HELD, HELD)).save(body, "PNG")

    def send() -> None:
        with suppress(httpx.TransportError):
            httpx.post(f"{cluster.url}/invocations", content=body.getvalue(), timeout=120)

    threading.Thread(target=send, daemon=True).start()


def kill_haproxy(given: Given) -> Outcome:
    """SIGKILL of HAProxy."""

    def fault(cluster: RayCluster) -> Callable[[], bool]:
        victims = cluster.processes(HAPROXY)
        for each in victims:
            each.kill()
        return lambda: bool(cluster.processes(HAPROXY)) and back(cluster, victims)()

    required = "no wrong response, none lost, back within 30 s"
    return under_load(given, fault, required, is_well(30))


def kill_proxy(given: Given) -> Outcome:
    """SIGKILL of the actor that is Ray's default proxy."""

    def fault(cluster: RayCluster) -> Callable[[], bool]:
        [victim] = cluster.processes(PROXY)
        victim.kill()
        return lambda: bool(cluster.processes(PROXY)) and back(cluster, [victim])()

    required = "no wrong response, none lost, back within 30 s"
    return under_load(given, fault, required, is_well(30), has_haproxy=False)


def kill_node(given: Given) -> Outcome:
    """SIGKILL of all processes of a worker node; another node takes its place."""

    def fault(cluster: RayCluster) -> Callable[[], bool]:
        raylet = psutil.Process(cluster.command("worker_raylet"))
        victims = [each for each in raylet.children(True) if each in cluster.processes(REPLICA)]
        assert len(victims) == 1, "the worker node has no replica"
        cluster.command("kill_node")
        cluster.command("add_node", 1)
        return back(cluster, victims)

    required = "no wrong response, none lost, back within 60 s on another node"
    return under_load(given, fault, required, is_well(60), nodes=[1, 1])


def freeze_node(given: Given) -> Outcome:
    """SIGSTOP of all processes of a worker node, as of a machine that is lost."""

    def fault(cluster: RayCluster) -> Callable[[], bool]:
        raylet = psutil.Process(cluster.command("worker_raylet"))
        members = [raylet, *raylet.children(recursive=True)]
        victims = [each for each in members if each in cluster.processes(REPLICA)]
        assert len(victims) == 1, "the worker node has no replica"
        for each in members:
            each.suspend()
        cluster.command("add_node", 1)
        survivors = [each for each in cluster.processes(REPLICA) if each not in victims]
        return lambda: (
            cluster.running() == 2
            and len([r for r in cluster.processes(REPLICA) if r not in victims]) > len(survivors)
        )

    # Nothing closes the connections of a lost machine: its requests end by the client's timeout.
    required = "no wrong response, only requests in progress lost, back within 90 s"
    return under_load(given, fault, required, is_well(90, lost=CLIENTS), nodes=[1, 1])


def update(given: Given, has_haproxy: bool = True) -> Outcome:
    """A new setting for two replicas, which Ray replaces one at a time."""

    def fault(cluster: RayCluster) -> Callable[[], bool]:
        before = cluster.processes(REPLICA)
        cluster.command("deploy", args_of(given, settings={"batch_wait_ms": 1}))
        return back(cluster, before)

    def is_passed(traffic: Traffic, _: float) -> bool:
        return set(traffic.counts) == {RIGHT}

    return under_load(given, fault, "no failed request", is_passed, has_haproxy=has_haproxy)
