"""SageMaker sends requests only to a container that is healthy: one with a loaded model."""

from pathlib import Path

import httpx
import pytest

from d2serve.aws.containers import SINGLE_WORKER, container_environment
from d2serve.aws.local_container import Container, running_container
from d2serve.errors import ContainerError
from d2serve.servers.torchserve.launcher.server import SERVER
from tests.polling import wait_until
from tests.serving.archives import HANDLER, WEIGHTS, repack, waiting_handler
from tests.serving.contract.rows import Array, png_of
from tests.serving.served import workers_of

TIMEOUT_S = 300
ENVIRONMENT = container_environment("realtime", SINGLE_WORKER)


def wait_for(text: str, container: Container) -> None:
    """Wait until TorchServe's log contains the text."""
    wait_until(lambda: text in container.logs.text(SERVER), TIMEOUT_S, every_s=0.1)


def torchserve_is_healthy(container: Container) -> bool:
    """True if TorchServe's own /ping, behind the reverse proxy, reports healthy."""
    return httpx.get(
        f"{container.management_url}/ping", timeout=TIMEOUT_S, trust_env=False
    ).is_success


def test_a_container_is_unhealthy_while_the_model_loads_and_until_a_dead_worker_is_replaced(
    package: Path, tmp_path: Path, http: httpx.Client, image: Array
) -> None:
    loads = tmp_path / "loads"
    slow = repack(package, tmp_path / "slow.tar.gz", {HANDLER: waiting_handler(load=loads)})
    with running_container(slow, ENVIRONMENT, log_dir=tmp_path / "logs") as container:
        wait_for("Torch worker started", container)
        assert torchserve_is_healthy(container)
        assert not container.is_healthy()
        loads.touch()
        container.wait_until_healthy(TIMEOUT_S)
        url = f"{container.url}/invocations"
        response = png_of(image).post(http, url)
        assert response.status_code == 200
        loads.unlink()
        [worker] = workers_of(container)
        worker.kill()
        worker.wait(TIMEOUT_S)
        wait_until(lambda: not container.is_healthy(), TIMEOUT_S)
        loads.touch()
        container.wait_until_healthy(TIMEOUT_S)
        with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as again:
            assert png_of(image).post(again, url).json() == response.json()


@pytest.mark.parametrize(
    ("name", "content", "logged"),
    [
        pytest.param(WEIGHTS, b"broken", "weights.pt cannot be read", id="weights"),
        pytest.param(HANDLER, b"import nothing_like_it", "nothing_like_it", id="handler"),
    ],
)
def test_a_container_whose_model_cannot_load_stays_unhealthy(
    package: Path, tmp_path: Path, name: str, content: bytes, logged: str
) -> None:
    broken = repack(package, tmp_path / "broken.tar.gz", {name: content})
    with running_container(broken, ENVIRONMENT, log_dir=tmp_path / "logs") as container:
        wait_for("Retry worker: 9000 in 1 seconds", container)
        assert torchserve_is_healthy(container)
        assert not container.is_healthy()
        with pytest.raises(ContainerError, match="was not healthy within 1 s"):
            container.wait_until_healthy(1)
        wait_for(logged, container)
