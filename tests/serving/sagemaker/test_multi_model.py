"""A multi-model endpoint's container, whose models SageMaker loads and unloads."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from d2serve.aws.containers import container_environment
from d2serve.aws.local_container import Container, load_model, running_container, unload_model
from d2serve.errors import ContainerError
from tests.serving.archives import WEIGHTS, repack
from tests.serving.contract.rows import Array, png_of
from tests.serving.traffic import images_run_together

TIMEOUT_S = 300
MAX_BATCH = 2


@pytest.fixture(scope="module")
def multi_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    environment = container_environment("mme", {})
    log_dir = tmp_path_factory.mktemp("logs")
    with running_container(None, environment, log_dir=log_dir) as running:
        running.wait_until_healthy(TIMEOUT_S)
        yield running


def loaded(container: Container) -> set[str]:
    listed = httpx.get(f"{container.url}/models", timeout=60, trust_env=False).json()
    return {model["modelName"] for model in listed["models"]}


def invoke(container: Container, http: httpx.Client, name: str, image: Array) -> httpx.Response:
    return png_of(image).post(http, f"{container.url}/models/{name}/invoke")


def test_models_are_loaded_listed_invoked_and_unloaded(
    multi_model: Container, package: Path, http: httpx.Client, image: Array
) -> None:
    assert loaded(multi_model) == set()
    load_model(multi_model, package, "first")
    load_model(multi_model, package, "second")
    assert loaded(multi_model) == {"first", "second"}
    responses = [invoke(multi_model, http, name, image) for name in ("first", "second")]
    assert [response.status_code for response in responses] == [200, 200]
    assert responses[0].json() == responses[1].json()
    with pytest.raises(ContainerError, match="409"):
        load_model(multi_model, package, "first")
    unload_model(multi_model, "first")
    assert loaded(multi_model) == {"second"}
    assert invoke(multi_model, http, "first", image).status_code == 404
    assert invoke(multi_model, http, "second", image).json() == responses[1].json()
    unload_model(multi_model, "second")
    assert loaded(multi_model) == set()
    assert multi_model.is_healthy()


def test_a_model_that_cannot_load_is_rejected_and_not_listed(
    multi_model: Container, package: Path, tmp_path: Path
) -> None:
    broken = repack(package, tmp_path / "broken.tar.gz", {WEIGHTS: b"broken"})
    with pytest.raises(ContainerError, match="500"):
        load_model(multi_model, broken, "broken")
    assert "broken" not in loaded(multi_model)
    assert multi_model.is_healthy()


def test_torchserve_limits_batches_as_documented(
    multi_model: Container, multi_model_package: Path, http: httpx.Client, image: Array
) -> None:
    """TorchServe 0.12 batches at most two requests if SageMaker registers the model."""
    load_model(multi_model, multi_model_package, "batched")
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda _: invoke(multi_model, http, "batched", image), range(48)))
    assert {response.status_code for response in responses} == {200}
    assert max(map(images_run_together, responses)) == MAX_BATCH
    unload_model(multi_model, "batched")
