"""One server behind a front door, whose handler has the faults that a test asks for."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from d2serve.servers.torchserve.launcher.server import running_server
from d2serve.serving.integrity import SUMS_FILE
from tests.serving.faults.faulty import (
    BATCH,
    CONNECTIONS,
    QUEUE,
    RESPONSE_TIMEOUT_S,
    Faulty,
    service,
)


@pytest.fixture(scope="session")
def faulty(shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    folder = tmp_path_factory.mktemp("faulty") / "shapes"
    with zipfile.ZipFile(shapes_mar) as archive:
        archive.extractall(folder)
    gate = tmp_path_factory.mktemp("gate")
    (folder / "handler.py").write_text(service(gate))
    config = folder / "model-config.yaml"
    settings = yaml.safe_load(config.read_text()) | {
        "batchSize": BATCH,
        "jobQueueSize": QUEUE,
        "responseTimeout": RESPONSE_TIMEOUT_S,
    }
    settings["handler"]["max_connections"] = CONNECTIONS
    config.write_text(yaml.safe_dump(settings))
    (folder / SUMS_FILE).unlink()
    logs = tmp_path_factory.mktemp("logs")
    with running_server(folder, log_dir=logs, front_door=True) as server:
        yield Faulty(server, gate)
