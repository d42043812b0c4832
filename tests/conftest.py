"""Fixtures for all tests: the repository, the bundled model's archive and a running TorchServe."""

import ctypes
import gc
import signal
import sys
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path

import botocore.session
import pytest

from d2serve.building.archive import ONE_WORKER, build_archive
from d2serve.servers.torchserve.launcher.server import Server, running_server

BATCH_SIZE = 8
# Fixtures of servers that several files use.
SHARED_SERVERS = ("server", "container")
# Folders whose tests take long or wait.
FIRST = ("tests/serving/", "tests/servers/", "tests/bench/")
# jsonschema would build 38 parsers for IRIs, which no schema here has, in each process.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]


def pytest_configure() -> None:
    """React to Ctrl-C, and let the processes of tests do so, also where a shell has started the
    tests in the background, which then ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests, and group them for `--dist loadgroup`.

    Tests that wait for servers are first, so that no process has them left for last.
    """
    items.sort(key=_rank)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))


def _rank(item: pytest.Item) -> int:
    """Place among FIRST, or after it; pytest itself would order the folders by name."""
    places = (place for place, folder in enumerate(FIRST) if item.nodeid.startswith(folder))
    return next(places, len(FIRST))


def _group(item: pytest.Item) -> str:
    """The tests of a group run in one process, and share its servers.

    Tests of several servers are grouped by folder and server, other tests by a server that many
    files use, and all others by file.
    """
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    file = item.nodeid.partition("::")[0]
    if server := parameters.get("server_name"):
        return f"{file.rpartition('/')[0]} on {server}"
    used = {*getattr(item, "fixturenames", ())} - parameters.keys()
    return next((name for name in SHARED_SERVERS if name in used), file)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run where pytest-xdist ignores the groups, which would start each server often."""
    if not session.config.getoption("loadgroup", False):
        return
    if any(not item.nodeid.endswith(f"@{_group(item)}") for item in session.items[:1]):
        raise pytest.UsageError("pytest-xdist does not group tests; install constraints.txt")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the collector of garbage away from what lives as long as the process.

    The imported modules and 12,000 collected tests are half a second's work each time.
    """
    gc.disable()
    result = yield
    gc.collect()
    gc.freeze()
    gc.enable()
    return result


@pytest.fixture(scope="session", autouse=True)
def _aws_services_are_read_once() -> Iterator[None]:
    """Share botocore's descriptions of services, which each boto3 session would parse again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", cache(botocore.session.create_loader))
        yield


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
