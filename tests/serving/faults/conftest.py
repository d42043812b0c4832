"""A server behind the reverse proxy, whose handler has faults on demand."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from d2serve.servers.torchserve.launcher.server import running_server
from tests.serving.archives import HANDLER, alter, unpack
from tests.serving.faults.faulty import (
    BATCH,
    CONNECTIONS,
    QUEUE,
    RESPONSE_TIMEOUT_S,
    Faulty,
    faulty_handler,
)


@pytest.fixture(scope="session")
def faulty(shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    folder = unpack(shapes_mar, tmp_path_factory.mktemp("faulty") / "shapes")
    gate = tmp_path_factory.mktemp("gate")
    config = folder / "model-config.yaml"
    settings = yaml.safe_load(config.read_text()) | {
        "batchSize": BATCH,
        "jobQueueSize": QUEUE,
        "responseTimeout": RESPONSE_TIMEOUT_S,
    }
    settings["handler"]["max_connections"] = CONNECTIONS
    config.write_text(yaml.safe_dump(settings))
    alter(folder, {HANDLER: faulty_handler(gate)})
    logs = tmp_path_factory.mktemp("logs")
    with running_server(folder, log_dir=logs, with_proxy=True) as server:
        yield Faulty(server, gate)
