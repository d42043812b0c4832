"""On SIGTERM a container completes running requests and rejects new ones."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from d2serve.aws.containers import SINGLE_WORKER, container_environment
from d2serve.aws.local_container import Container, running_container
from tests.polling import wait_until
from tests.serving.archives import HANDLER, repack, waiting_handler
from tests.serving.contract.rows import Array, png_of

TIMEOUT_S = 120
QUEUED = 12


def queued_requests(container: Container) -> int:
    """The length of TorchServe's queue."""
    url = f"{container.management_url}/models/model"
    [model] = httpx.get(url, timeout=TIMEOUT_S, trust_env=False).json()
    return int(model["jobQueueStatus"]["pendingRequests"])


def test_running_requests_are_completed_and_new_ones_rejected(
    package: Path, tmp_path: Path, image: Array
) -> None:
    runs = tmp_path / "runs"
    files = {HANDLER: waiting_handler(forward=runs)}
    slow = repack(package, tmp_path / "slow.tar.gz", files)
    draining = {"D2SERVE_DRAIN_SECONDS": str(TIMEOUT_S)}
    environment = container_environment("realtime", draining | SINGLE_WORKER)

    def send() -> httpx.Response:
        with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as http:
            return png_of(image).post(http, f"{container.url}/invocations")

    with (
        running_container(slow, environment, log_dir=tmp_path / "logs") as container,
        ThreadPoolExecutor(1 + QUEUED) as pool,
    ):
        container.wait_until_healthy(TIMEOUT_S)
        running = [pool.submit(send)]
        wait_until(Path(f"{runs}.begun").exists, TIMEOUT_S)
        # More than one batch, behind the running one.
        running += [pool.submit(send) for _ in range(QUEUED)]
        wait_until(lambda: queued_requests(container) >= QUEUED, TIMEOUT_S)
        container.process.terminate()
        wait_until(lambda: not container.is_healthy(), TIMEOUT_S)
        runs.touch()
        assert [response.result().status_code for response in running] == [200] * len(running)
        assert container.process.wait(TIMEOUT_S) == 0
