from pathlib import Path

import httpx
import psutil

from d2serve.servers.torchserve.launcher.config import read_properties
from d2serve.servers.torchserve.launcher.server import Server
from tests.conftest import BATCH_SIZE


def test_ping(server: Server, http: httpx.Client) -> None:
    ping = http.get(f"{server.url}/ping")
    assert (ping.status_code, ping.json()) == (200, {"status": "Healthy"})


def test_the_archives_settings_are_in_force(server: Server, http: httpx.Client) -> None:
    [model] = http.get(f"{server.management_url}/models/shapes").json()
    assert model["batchSize"] == BATCH_SIZE
    assert [worker["status"] for worker in model["workers"]] == ["READY"]


def test_java_runs_with_the_memory_that_the_properties_give_it(
    server: Server, repo_root: Path
) -> None:
    options = read_properties(repo_root / "config.properties")["vmargs"].split()
    [java] = psutil.Process(server.process.pid).children()
    assert set(options) <= set(java.cmdline())


def test_no_model_can_be_registered(server: Server, http: httpx.Client, shapes_mar: Path) -> None:
    for url in ("https://example.com/evil.mar", str(shapes_mar)):
        refused = http.post(f"{server.management_url}/models", params={"url": url})
        assert refused.status_code == 405
    models = http.get(f"{server.management_url}/models").json()["models"]
    assert [model["modelName"] for model in models] == ["shapes"]


def test_requests_beyond_torchserves_own_limit_pass(server: Server, http: httpx.Client) -> None:
    body = bytes(20 * 1024**2)
    refused = http.post(f"{server.url}/invocations", content=body)
    assert refused.json()["error"]["code"] == "unsupported_media_type"


def test_metrics_are_prometheus(server: Server, http: httpx.Client) -> None:
    metrics = http.get(f"http://127.0.0.1:{server.ports.metrics}/metrics")
    assert metrics.status_code == 200
    assert "# TYPE ts_inference_requests_total counter" in metrics.text
