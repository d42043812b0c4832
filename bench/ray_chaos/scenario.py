"""A scenario: a cluster with two replicas under load, a fault, and the return to normal."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from bench.ray_chaos.cluster import (
    READY_WITHIN_S,
    REPLICA,
    RayCluster,
    is_alive,
    running_cluster,
    status_of,
    wait_until,
)
from bench.ray_chaos.traffic import (
    LOST,
    RIGHT,
    WRONG,
    Sample,
    Traffic,
    samples_of,
    sending,
)

BEFORE_S, AFTER_S = 4.0, 4.0


class Outcome(NamedTuple):
    """The result of a scenario.

    Attributes:
        required: what had to be the case.
        passed: whether it was.
        seconds: time from the fault until the server was complete again; None if it does not apply.
        traffic: the responses; None without traffic.
        facts: further observations.
    """

    required: str
    passed: bool
    seconds: float | None = None
    traffic: Traffic | None = None
    facts: Mapping[str, Any] = {}


class Given(NamedTuple):
    """The model and the images that are sent."""

    model: Path
    images: Path


def args_of(given: Given, **more: Any) -> dict[str, Any]:
    """The arguments of an application with two replicas."""
    archive = str(given.model)
    return {"archive": archive, "num_replicas": 2, "num_cpus": 1, "check_model": False, **more}


@contextmanager
def two_replicas(given: Given, **options: Any) -> Iterator[tuple[RayCluster, list[Sample]]]:
    """A cluster with two replicas that are ready, and the requests."""
    args = args_of(given, **options.pop("args", {}))
    with running_cluster(**options) as cluster:
        cluster.command("deploy", args)
        cluster.wait_for_replicas(2)
        wait_until(lambda: status_of(f"{cluster.url}/ping") == 200, READY_WITHIN_S)
        url = f"{cluster.url}/invocations"
        yield cluster, samples_of(given.images, url, given.model.stem)


def under_load(
    given: Given,
    fault: Callable[[RayCluster], Callable[[], bool]],
    required: str,
    is_passed: Callable[[Traffic, float], bool],
    **options: Any,
) -> Outcome:
    """Break something under load, and wait until it is well again.

    Args:
        given: the model and the images.
        fault: breaks something, and returns a function that is true when it is well again.
        required: what has to be the case.
        is_passed: whether it is, from the traffic and the seconds until it was well.
        options: of the cluster.
    """
    with (
        two_replicas(given, **options) as (cluster, samples),
        sending(f"{cluster.url}/invocations", samples) as traffic,
    ):
        time.sleep(BEFORE_S)
        traffic.fault_now()
        seconds = wait_until(fault(cluster), READY_WITHIN_S)
        time.sleep(AFTER_S)
    return Outcome(required, is_passed(traffic, seconds), seconds, traffic)


def is_well(within_s: float, lost: int = 0) -> Callable[[Traffic, float], bool]:
    """No wrong response, at most `lost` requests without any, and well again in time."""

    def is_passed(traffic: Traffic, seconds: float) -> bool:
        counts = traffic.counts
        is_right = counts[RIGHT] > 0 and not counts[WRONG] and counts[LOST] <= lost
        return is_right and seconds < within_s

    return is_passed


def back(cluster: RayCluster, killed: list[psutil.Process]) -> Callable[[], bool]:
    """A function that is true when two replicas run; Ray starts one after it has noticed a loss."""
    return lambda: (
        not any(map(is_alive, killed))
        and len(cluster.processes(REPLICA)) == 2
        and cluster.running() == 2
        and status_of(f"{cluster.url}/ping") == 200
    )
