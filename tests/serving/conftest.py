"""The samples, and an HTTP client that neither retries nor asks a proxy."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from scripts.torchserve import Server


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
def url(server: Server) -> str:
    return f"{server.url}/invocations"


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=120, trust_env=False) as client:
        yield client
