"""All scenarios by name."""

from collections.abc import Callable

from bench.ray_chaos.faults import (
    freeze_node,
    freeze_replica,
    hang,
    kill_haproxy,
    kill_node,
    kill_proxy,
    kill_replica,
    update,
)
from bench.ray_chaos.lifecycle import cannot_load, kill_command, terminate
from bench.ray_chaos.scenario import Given, Outcome

SCENARIOS: dict[str, Callable[[Given], Outcome]] = {
    "kill-replica": kill_replica,
    "kill-replica-default-proxy": lambda given: kill_replica(given, has_haproxy=False),
    "freeze-replica": freeze_replica,
    "hang": hang,
    "kill-haproxy": kill_haproxy,
    "kill-default-proxy": kill_proxy,
    "kill-node": kill_node,
    "freeze-node": freeze_node,
    "update": update,
    "update-default-proxy": lambda given: update(given, has_haproxy=False),
    "cannot-load": cannot_load,
    "cannot-load-default-proxy": lambda given: cannot_load(given, has_haproxy=False),
    "terminate": terminate,
    "kill-command": kill_command,
}
