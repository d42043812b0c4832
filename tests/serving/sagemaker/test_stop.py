"""What SIGTERM does to a container: requests that run are answered, new ones are refused."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from d2serve.aws.containers import SINGLE_WORKER, container_environment
from d2serve.aws.local_container import Container, running_container
from tests.serving.contract.rows import Array, png_of
from tests.serving.sagemaker.packages import SERVICE, repacked, waiting_service

WITHIN_S = 120
WAITING = 12


def waiting_requests(container: Container) -> int:
    """How many wait in TorchServe's queue."""
    [model] = httpx.get(f"{container.management_url}/models/model", trust_env=False).json()
    return int(model["jobQueueStatus"]["pendingRequests"])


def test_requests_that_run_are_answered_and_new_ones_refused(
    package: Path, tmp_path: Path, picture: Array
) -> None:
    go_on = tmp_path / "go-on"
    files = {SERVICE: waiting_service(forward=go_on)}
    slow = repacked(package, tmp_path / "slow.tar.gz", files)
    patience = {"D2SERVE_DRAIN_SECONDS": str(WITHIN_S)}
    environment = container_environment("realtime", patience | SINGLE_WORKER)
    polling = Retrying(
        stop=stop_after_delay(WITHIN_S), wait=wait_fixed(0.02), retry=retry_if_result(bool)
    )

    def ask() -> httpx.Response:
        with httpx.Client(timeout=WITHIN_S, trust_env=False) as http:
            return png_of(picture).post(http, f"{container.url}/invocations")

    with (
        running_container(slow, environment, log_dir=tmp_path / "logs") as container,
        ThreadPoolExecutor(1 + WAITING) as pool,
    ):
        container.wait_until_healthy(WITHIN_S)
        running = [pool.submit(ask)]
        polling(lambda: not Path(f"{go_on}.begun").exists())
        # More than fits into one batch, behind the one that runs.
        running += [pool.submit(ask) for _ in range(WAITING)]
        polling(lambda: waiting_requests(container) < WAITING)
        container.process.terminate()
        polling(container.is_healthy)
        go_on.touch()
        assert [answer.result().status_code for answer in running] == [200] * len(running)
        assert container.process.wait(WITHIN_S) == 0
