"""A multi-model endpoint's container: models come and go, as SageMaker loads and unloads them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from d2serve.aws.containers import container_environment
from d2serve.aws.local_container import (
    Container,
    ContainerError,
    load_model,
    running_container,
    unload_model,
)
from tests.serving.contract.rows import Array, png_of
from tests.serving.sagemaker.packages import repacked
from tests.serving.traffic import images_run_together

WITHIN_S = 120
MOST_TOGETHER = 2


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    environment = container_environment("mme", {})
    log_dir = tmp_path_factory.mktemp("logs")
    with running_container(None, environment, log_dir=log_dir) as running:
        running.wait_until_healthy(WITHIN_S)
        yield running


def loaded(container: Container) -> set[str]:
    listed = httpx.get(f"{container.url}/models", trust_env=False).json()
    return {model["modelName"] for model in listed["models"]}


def invoke(container: Container, http: httpx.Client, name: str, picture: Array) -> httpx.Response:
    return png_of(picture).post(http, f"{container.url}/models/{name}/invoke")


def test_models_are_loaded_listed_invoked_and_unloaded(
    many: Container, package: Path, http: httpx.Client, picture: Array
) -> None:
    assert loaded(many) == set()
    load_model(many, package, "first")
    load_model(many, package, "second")
    assert loaded(many) == {"first", "second"}
    answers = [invoke(many, http, name, picture) for name in ("first", "second")]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    with pytest.raises(ContainerError, match="409"):
        load_model(many, package, "first")
    unload_model(many, "first")
    assert loaded(many) == {"second"}
    assert invoke(many, http, "first", picture).status_code == 404
    assert invoke(many, http, "second", picture).json() == answers[1].json()
    unload_model(many, "second")
    assert loaded(many) == set()
    assert many.is_healthy()


def test_a_model_that_cannot_load_is_refused_and_not_listed(
    many: Container, package: Path, tmp_path: Path
) -> None:
    broken = repacked(package, tmp_path / "broken.tar.gz", {"weights.pt": b"broken"})
    with pytest.raises(ContainerError, match="500"):
        load_model(many, broken, "broken")
    assert "broken" not in loaded(many)
    assert many.is_healthy()


def test_torchserve_forms_no_larger_batches_than_documented(
    many: Container, multi_model_package: Path, http: httpx.Client, picture: Array
) -> None:
    """TorchServe 0.12 takes at most two requests at once where SageMaker registers a model."""
    load_model(many, multi_model_package, "batched")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: invoke(many, http, "batched", picture), range(48)))
    assert {answer.status_code for answer in answers} == {200}
    assert max(map(images_run_together, answers)) == MOST_TOGETHER
    unload_model(many, "batched")
