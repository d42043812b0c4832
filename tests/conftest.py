"""Fixtures for all tests: the repository, the bundled model's archive and a running TorchServe."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from d2serve.building.archive import ONE_WORKER, build_archive
from d2serve.servers.torchserve.launcher.server import Server, running_server

BATCH_SIZE = 8


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for `--dist loadgroup`: by folder and server for tests of several, else by file.

    The tests of a group run in one process, and share its servers.
    """
    for item in items:
        callspec = getattr(item, "callspec", None)
        server = callspec.params.get("server_name") if callspec else None
        file = item.nodeid.partition("::")[0]
        group = f"{file.rpartition('/')[0]} on {server}" if server else file
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shapes(repo_root: Path) -> Path:
    """The folder of the bundled model."""
    return repo_root / "models" / "shapes"


@pytest.fixture(scope="session")
def shapes_mar(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model's archive, with one worker so that concurrent requests share batches."""
    return build_archive(
        shapes / "config.yaml",
        shapes / "model_final.pth",
        tmp_path_factory.mktemp("model-store") / "shapes.mar",
        class_names=shapes / "classes.json",
        model_config={"batchSize": BATCH_SIZE, "maxBatchDelay": 20, **ONE_WORKER},
    )


@pytest.fixture(scope="session")
def server(shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real TorchServe behind its proxy, as `d2serve serve` runs it, with batches of up to 8."""
    log_dir = tmp_path_factory.mktemp("logs")
    with running_server(shapes_mar, log_dir=log_dir, with_proxy=True) as running:
        yield running


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Return freed memory to the system after each file: several processes run tests at a time.

    glibc keeps what models and large images have used, about 1 GB in a process.
    """
    if nextitem is None or nextitem.path != item.path:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
