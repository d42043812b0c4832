"""Serve an unpacked archive with Ray's own `serve.batch`, as a script in the environment of Ray.

Prints the base URL when the model is ready, and runs until its stdin ends.
"""

import os
import sys
import tempfile
from pathlib import Path

from d2serve.servers.asgi.listener import open_listener
from d2serve.servers.exposure import LOOPBACK
from d2serve.servers.ray.environment import ray_environment, uses_haproxy
from d2serve.serving.cpu import available_cpus

OBJECT_STORE_BYTES = 200_000_000


def main(folder: str) -> None:
    """Serve until stdin ends."""
    with tempfile.TemporaryDirectory(prefix="d2b-", ignore_cleanup_errors=True) as home:
        with open_listener(LOOPBACK, 0) as listener:
            port: int = listener.getsockname()[1]
        os.environ.update({**ray_environment(Path(home), uses_haproxy()), **os.environ})
        # Ray reads these variables when it is imported.
        import ray
        from ray import serve

        from bench.ray.batched_model import BatchedModel

        ray.init(
            address="local",
            num_cpus=available_cpus(),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            _temp_dir=str(Path(home, "ray")),
        )
        try:
            serve.start(http_options={"host": LOOPBACK, "port": port})
            options = {"ray_actor_options": {"num_cpus": available_cpus()}}
            serve.run(BatchedModel.options(**options).bind(folder))  # type: ignore[attr-defined]
            print(f"http://{LOOPBACK}:{port}", flush=True)
            sys.stdin.read()
            serve.shutdown()
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
