"""The sample images, reference responses, and an HTTP client that uses no proxy."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from d2serve.aws.containers import SINGLE_WORKER, container_environment
from d2serve.aws.local_container import Container, running_container
from d2serve.building.package import Container as PackageContainer
from d2serve.building.package import build_package
from d2serve.servers.torchserve.launcher.server import Server
from tests.serving.asgi_server import AsgiServer, running_asgi_server
from tests.serving.traffic import pixels, predictions_of


@pytest.fixture(scope="session")
def samples(shapes: Path) -> list[Path]:
    return sorted((shapes / "samples").iterdir())


@pytest.fixture(scope="session")
def jpeg(samples: list[Path]) -> Path:
    return next(sample for sample in samples if sample.suffix == ".jpg")


@pytest.fixture(scope="session")
def png(samples: list[Path]) -> Path:
    return next(sample for sample in samples if sample.suffix == ".png")


@pytest.fixture(scope="session")
def image(png: Path) -> "np.ndarray[Any, Any]":
    """UInt8[H, W, 3] RGB, in which the bundled model detects instances."""
    return pixels(png)


@pytest.fixture(scope="session")
def url(server: Server) -> str:
    return f"{server.url}/invocations"


@pytest.fixture(scope="session")
def package(shapes_mar: Path) -> Path:
    """The bundled model for SageMaker."""
    return build_package(shapes_mar).path


@pytest.fixture(scope="session")
def multi_model_package(shapes_mar: Path) -> Path:
    """The bundled model for multi-model endpoints."""
    return build_package(shapes_mar, multi_model=True).path


@pytest.fixture(scope="session")
def container(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """AWS's toolkit with the bundled model, configured as by `d2serve deploy`, with one worker."""
    log_dir = tmp_path_factory.mktemp("container-logs")
    environment = container_environment("transform", SINGLE_WORKER)
    with running_container(package, environment, log_dir=log_dir) as running:
        running.wait_until_healthy(within_s=300)
        yield running


@pytest.fixture(scope="session")
def ray_package(shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model for AWS's Ray container."""
    archive = Path(shutil.copy(shapes_mar, tmp_path_factory.mktemp("ray-packages")))
    return build_package(archive, container=PackageContainer.RAY).path


@pytest.fixture(scope="session")
def asgi(shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsgiServer]:
    """The bundled model on the ASGI server."""
    with running_asgi_server(shapes_mar, log_dir=tmp_path_factory.mktemp("asgi-logs")) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=120, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def prediction_of(url: str) -> Callable[["np.ndarray[Any, Any]"], dict[str, Any]]:
    return predictions_of(url)
