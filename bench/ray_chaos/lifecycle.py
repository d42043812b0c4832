"""Models that cannot be loaded, and the end of `d2serve serve --server ray`."""

import re
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.ray_chaos.cluster import (
    PREFIX,
    READY_WITHIN_S,
    RayCluster,
    family_of,
    is_alive,
    running_cluster,
    status_of,
    wait_until,
)
from bench.ray_chaos.scenario import BEFORE_S, Given, Outcome, args_of
from bench.ray_chaos.traffic import (
    RIGHT,
    samples_of,
    sending,
)
from d2serve.servers.ray.private_ray import short_folder
from tests.serving.ray_server import running_ray_server

WATCHED_S = 10.0
# The folder of `d2serve serve --server ray`.
HOME = re.compile(r"/[^ =]*/d2s-\w+")
BROKEN = {"precision": "fp99"}


def cannot_load(given: Given, has_haproxy: bool = True) -> Outcome:
    """A model that cannot be loaded, with and without the check in `build`."""
    facts: dict[str, Any] = {}
    for checks in (True, False):
        with running_cluster(has_haproxy=has_haproxy) as cluster:
            args = args_of(given, num_replicas=1, settings=BROKEN, check_model=checks)
            cluster.command("deploy", args)
            facts[f"check_model: {str(checks).lower()}"] = _failure_of(cluster)
    named = all(each["message"] for each in facts.values())
    unhealthy = all(200 not in each["/ping"] for each in facts.values())
    required = "/ping never succeeds, and the status names the error"
    return Outcome(required, named and unhealthy, facts=facts)


def _failure_of(cluster: RayCluster) -> dict[str, Any]:
    """The statuses of the health routes until a while after the application has failed."""
    seen: dict[str, set[int]] = {"/-/healthz": set(), "/ping": set()}

    def has_failed() -> bool:
        for route, statuses in seen.items():
            statuses.add(status_of(f"{cluster.url}{route}"))
        return bool(cluster.command("status")["status"] == "DEPLOY_FAILED")

    seconds = wait_until(has_failed, READY_WITHIN_S)
    time.sleep(WATCHED_S)
    has_failed()
    message = cluster.command("status")["message"].splitlines()
    return {
        **{route: sorted(statuses) for route, statuses in seen.items()},
        "failed after s": round(seconds, 1),
        "message": [line for line in message if BROKEN["precision"] in line][-1:],
    }


def terminate(given: Given) -> Outcome:
    """SIGTERM of `d2serve serve --server ray`."""
    with (
        short_folder(PREFIX) as folder,
        running_ray_server(given.model, log_dir=folder) as server,
    ):
        url = f"{server.url}/invocations"
        samples = samples_of(given.images, url, given.model.stem)
        family = family_of(server.process.pid)
        with sending(url, samples) as traffic:
            time.sleep(BEFORE_S)
            traffic.fault_now()
            server.process.terminate()
            seconds = wait_until(lambda: server.process.poll() is not None, READY_WITHIN_S)
        facts = {
            "exit code": server.process.returncode,
            "requests in progress that failed": sum(
                record.due < traffic.fault_at and outcome != RIGHT
                for record, outcome in traffic.outcomes
            ),
            "processes left": sum(map(is_alive, family)),
        }
    required = "requests in progress complete, and no process remains"
    return Outcome(required, not any(facts.values()), seconds, traffic, facts)


def kill_command(given: Given) -> Outcome:
    """SIGKILL of `d2serve serve --server ray`."""
    with short_folder(PREFIX) as logs:
        with running_ray_server(given.model, log_dir=logs) as server:
            family = family_of(server.process.pid)
            commands = [" ".join(each.cmdline()) for each in family]
            homes = {Path(path) for line in commands for path in HOME.findall(line)}
            assert homes, "the folder of the server is not known"
            server.process.send_signal(signal.SIGKILL)

            def is_clean() -> bool:
                return not any(map(is_alive, family)) and not any(map(Path.exists, homes))

            seconds: float | None = None
            with suppress(TimeoutError):
                seconds = wait_until(is_clean, 30)
        left = [each for each in family if is_alive(each)]
        facts = {
            "processes": len(family),
            "processes left": [" ".join(each.cmdline())[:60] for each in left],
            "folders left": [str(path) for path in homes if path.exists()],
        }
        for each in left:
            each.kill()
    return Outcome("neither processes nor files remain", seconds is not None, seconds, facts=facts)
