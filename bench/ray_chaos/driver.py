"""A Ray cluster on this machine with Ray Serve, controlled by lines of JSON on its stdin.

Runs in the environment that has Ray; `cluster.py` starts it.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

APPLICATION = "chaos"
OBJECT_STORE_BYTES = 100_000_000
KEEP_ALIVE_S = 75


class Driver:
    """A running cluster.

    Args:
        folder: an empty folder with a short path.
        port: of Ray Serve.
        nodes: number of CPUs of each node; the first one is the head.
    """

    def __init__(self, folder: str, port: int, nodes: list[int]) -> None:
        self._cluster = Cluster(shutdown_at_exit=True)
        head, *workers = nodes
        self._add_node(head, temp_dir=folder, include_dashboard=False)
        ray.init(address=self._cluster.address, log_to_driver=False)
        # Proxies of several nodes would share the port of this machine.
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": "127.0.0.1", "port": port, "keep_alive_timeout_s": KEEP_ALIVE_S},
        )
        self._workers = [self._add_node(cpus) for cpus in workers]

    def _add_node(self, cpus: int, **options: Any) -> Any:
        return self._cluster.add_node(
            num_cpus=cpus, object_store_memory=OBJECT_STORE_BYTES, **options
        )

    def add_node(self, cpus: int) -> None:
        """Add a worker node."""
        self._workers.append(self._add_node(cpus))

    def worker_raylet(self) -> int:
        """The process that manages the first worker node."""
        process: int = self._workers[0].all_processes["raylet"][0].process.pid
        return process

    def kill_node(self) -> None:
        """Kill the processes of the first worker node."""
        self._cluster.remove_node(self._workers.pop(0), allow_graceful=False)

    def stop(self) -> None:
        """Stop all nodes, without draining."""
        ray.shutdown()
        self._cluster.shutdown()

    def deploy(self, args: Mapping[str, Any]) -> None:
        """Deploy or update the application, as `serve deploy` does; does not wait."""
        application = {
            "name": APPLICATION,
            "route_prefix": "/",
            "import_path": "d2serve.servers.ray:build",
            "args": dict(args),
        }
        _get_global_client().deploy_apps(ServeDeploySchema(applications=[application]))

    def status(self) -> dict[str, Any]:
        """Status of the application, its message, and the number of replicas by state."""
        application = serve.status().applications.get(APPLICATION)
        if application is None:
            return {"status": "", "message": "", "replicas": {}}
        states = [each.replica_states for each in application.deployments.values()]
        replicas = {str(state): count for each in states for state, count in each.items()}
        message = application.message
        return {"status": str(application.status.value), "message": message, "replicas": replicas}


def main() -> None:
    """Start the cluster; run a command per line until stdin ends."""
    # Ray writes to stdout as well.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    driver = Driver(**json.loads(sys.argv[1]))
    print(json.dumps(None), file=output, flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        command: Callable[..., Any] = getattr(driver, name)
        print(json.dumps(command(*arguments)), file=output, flush=True)
    driver.stop()


if __name__ == "__main__":
    main()
