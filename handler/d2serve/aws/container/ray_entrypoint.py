"""Start a package as the entrypoint of AWS's Ray container for SageMaker does.

Runs with the container's packages, of the versions in constraints-ray.txt. The order is that of the
container: a Ray head node, Serve's controller and proxy, the application of `config.yaml` in the
background, and, when it is healthy or after a minute, the adapter in the foreground, with which the
container ends. It differs from the container in its addresses: everything listens on free ports of
the loopback interface, and Ray has a temporary folder and a small object store of its own.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

SERVE_CONFIG = "config.yaml"
ADAPTER = Path(__file__).with_name("ray_adapter.py")
# The container starts the adapter after this time also if the application is not healthy.
HEALTHY_WITHIN_S = 60.0
# An application that ends in this time ends the container.
CRASH_WITHIN_S = 5.0
POLL_S = 0.2
LIST_GPUS = ("nvidia-smi", "--list-gpus")
OBJECT_STORE_BYTES = 200_000_000


def main(options: dict[str, Any]) -> NoReturn:
    """Run the container until its adapter ends.

    Args:
        options: `model_dir`, `temp_dir`, and `ports` by name.
    """
    ports: dict[str, int] = options["ports"]
    _run("ray", "start", "--head", *_head_options(options["temp_dir"], ports))
    os.environ["RAY_ADDRESS"] = f"127.0.0.1:{ports['gcs']}"
    _run("serve", "start", "--http-host=127.0.0.1", f"--http-port={ports['serve']}")
    command = ("serve", "run", f"{options['model_dir']}/{SERVE_CONFIG}")
    application = subprocess.Popen(command)
    backend = f"http://127.0.0.1:{ports['serve']}"
    _wait_until_healthy(application, backend)
    adapter = subprocess.run([sys.executable, ADAPTER, str(ports["adapter"]), backend])
    sys.exit(_status_of_shell(adapter.returncode))


def _status_of_shell(returncode: int) -> int:
    """A shell's exit status for a process; 128 and the number of the signal that ended it."""
    return returncode if returncode >= 0 else 128 - returncode


def _head_options(temp_dir: str, ports: dict[str, int]) -> list[str]:
    """Options of the container, and those that keep several heads on one machine apart."""
    return [
        *("--include-dashboard=False", f"--num-gpus={_count_gpus()}"),
        *(f"--port={ports['gcs']}", "--node-ip-address=127.0.0.1", f"--temp-dir={temp_dir}"),
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--ray-client-server-port={ports['client']}",
        f"--dashboard-agent-listen-port={ports['agent']}",
        *("--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"),
    ]


def _count_gpus() -> int:
    try:
        listed = subprocess.run(LIST_GPUS, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return 0
    return len(listed.stdout.splitlines())


def _run(*command: str) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)


def _wait_until_healthy(application: "subprocess.Popen[bytes]", backend: str) -> None:
    start = time.monotonic()
    while (passed := time.monotonic() - start) < HEALTHY_WITHIN_S and not _is_healthy(backend):
        if passed < CRASH_WITHIN_S and application.poll() is not None:
            sys.exit("serve run has ended during its start")
        time.sleep(POLL_S)


def _is_healthy(backend: str) -> bool:
    # No proxy of the environment between processes of one container.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{backend}/-/healthz", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
