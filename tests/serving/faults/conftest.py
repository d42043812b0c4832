"""Servers with faults on demand."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from d2serve.servers.torchserve.launcher.server import running_server
from tests.serving.archives import HANDLER, alter, unpack
from tests.serving.asgi_server import AsgiServer, running_asgi_server
from tests.serving.faults.faulty import (
    BATCH,
    CONNECTIONS,
    FORWARD_TIMEOUT_S,
    QUEUE,
    Faulty,
    FaultyAsgi,
    FaultyTorchServe,
)
from tests.serving.faults.injection import faulty_handler, faulty_site

SERVERS = {"torchserve": "faulty_torchserve", "asgi": "faulty_asgi"}


@pytest.fixture(scope="session", params=SERVERS)
def server_name(request: pytest.FixtureRequest) -> str:
    """A name in SERVERS."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def faulty(request: pytest.FixtureRequest, server_name: str) -> Faulty:
    """A server with faults on demand."""
    running: Faulty = request.getfixturevalue(SERVERS[server_name])
    return running


@pytest.fixture(scope="session")
def faulty_torchserve(
    shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultyTorchServe]:
    folder = unpack(shapes_mar, tmp_path_factory.mktemp("faulty") / "shapes")
    gate = tmp_path_factory.mktemp("gate")
    more = {"batchSize": BATCH, "jobQueueSize": QUEUE, "responseTimeout": FORWARD_TIMEOUT_S}
    configure(folder, more, max_connections=CONNECTIONS)
    alter(folder, {HANDLER: faulty_handler(gate)})
    logs = tmp_path_factory.mktemp("logs")
    with running_server(folder, log_dir=logs, with_proxy=True) as server:
        yield FaultyTorchServe(gate, server)


@pytest.fixture(scope="session")
def faulty_asgi(shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyAsgi]:
    gate = tmp_path_factory.mktemp("gate")
    (gate / "load").touch()
    with running_faulty_asgi(shapes_mar, gate, tmp_path_factory.mktemp("faulty")) as server:
        server.wait_until_ready()
        yield FaultyAsgi(gate, server)


@contextmanager
def running_faulty_asgi(archive: Path, gate: Path, folder: Path) -> Iterator[AsgiServer]:
    """Start an ASGI server that loads its model once the file `load` exists in the gate."""
    model = unpack(archive, folder / "shapes")
    configure(
        model,
        {},
        images_per_forward=BATCH,
        max_queued_requests=QUEUE + 1,
        max_connections=CONNECTIONS,
    )
    alter(model, {})
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(faulty_site(gate))
    with running_asgi_server(
        model,
        log_dir=folder / "logs",
        environment={"PYTHONPATH": str(site)},
        arguments=["--forward-timeout", str(FORWARD_TIMEOUT_S)],
    ) as server:
        yield server


def configure(folder: Path, more: dict[str, Any], **settings: Any) -> None:
    """Change the model config of an unpacked archive, and settings in its section `handler`."""
    file = folder / "model-config.yaml"
    config = yaml.safe_load(file.read_text()) | more
    config["handler"] |= settings
    file.write_text(yaml.safe_dump(config))
