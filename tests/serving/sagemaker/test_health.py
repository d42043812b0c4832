"""When SageMaker may send requests: never to a model that has not been loaded, or cannot be."""

from pathlib import Path

import httpx
import pytest
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from d2serve.aws.containers import SINGLE_WORKER, container_environment
from d2serve.aws.local_container import Container, ContainerError, running_container
from d2serve.servers.torchserve.launcher.server import SERVER
from tests.serving.contract.rows import Array, png_of
from tests.serving.sagemaker.packages import SERVICE, repacked, waiting_service
from tests.serving.served import workers_of

WITHIN_S = 120
ENVIRONMENT = container_environment("realtime", SINGLE_WORKER)


def wait_for(what: str, container: Container) -> None:
    """Until TorchServe's log says it."""
    polling = Retrying(
        stop=stop_after_delay(WITHIN_S), wait=wait_fixed(0.1), retry=retry_if_result(bool)
    )
    polling(lambda: what not in container.logs.text(SERVER))


def torchserve_is_healthy(container: Container) -> bool:
    """What /ping says behind the front door, where nobody but this test hears it."""
    return httpx.get(f"{container.management_url}/ping", trust_env=False).is_success


def test_a_model_that_still_loads_is_not_healthy(package: Path, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    slow = repacked(package, tmp_path / "slow.tar.gz", {SERVICE: waiting_service(load=go_on)})
    with running_container(slow, ENVIRONMENT, log_dir=tmp_path / "logs") as container:
        wait_for("Torch worker started", container)
        assert torchserve_is_healthy(container)
        assert not container.is_healthy()
        go_on.touch()
        container.wait_until_healthy(WITHIN_S)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        pytest.param("weights.pt", b"broken", "weights.pt cannot be read", id="weights"),
        pytest.param(SERVICE, b"import nothing_like_it", "nothing_like_it", id="handler"),
    ],
)
def test_a_model_that_cannot_load_is_never_healthy(
    package: Path, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    broken = repacked(package, tmp_path / "broken.tar.gz", {name: content})
    with running_container(broken, ENVIRONMENT, log_dir=tmp_path / "logs") as container:
        wait_for("Retry worker: 9000 in 1 seconds", container)
        assert torchserve_is_healthy(container)
        assert not container.is_healthy()
        with pytest.raises(ContainerError, match="was not healthy within 1 s"):
            container.wait_until_healthy(1)
        wait_for(said, container)


def test_a_worker_that_dies_closes_the_port_until_the_next_one_is_ready(
    package: Path, tmp_path: Path, http: httpx.Client, picture: Array
) -> None:
    with running_container(package, ENVIRONMENT, log_dir=tmp_path / "logs") as container:
        container.wait_until_healthy(WITHIN_S)
        url = f"{container.url}/invocations"
        answer = png_of(picture).post(http, url)
        assert answer.status_code == 200
        [worker] = workers_of(container)
        worker.kill()
        worker.wait(WITHIN_S)
        polling = Retrying(
            stop=stop_after_delay(WITHIN_S), wait=wait_fixed(0.02), retry=retry_if_result(bool)
        )
        polling(container.is_healthy)
        container.wait_until_healthy(WITHIN_S)
        with httpx.Client(timeout=WITHIN_S, trust_env=False) as again:
            assert png_of(picture).post(again, url).json() == answer.json()
