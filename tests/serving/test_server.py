from pathlib import Path

import httpx
import psutil

from d2serve.servers.torchserve.launcher.config import read_properties
from d2serve.servers.torchserve.launcher.server import Server, running_server
from tests.conftest import BATCH_SIZE
from tests.serving.archives import alter, unpack
from tests.serving.traffic import image_body

HANDLER_MODULE = "d2serve/servers/torchserve/handler.py"
ADD_HEADER = """

publish_unaltered = publish_response


def publish_response(response, context, index):
    publish_unaltered(response, context, index)
    context.set_response_header(index, "x-altered", __file__)
"""


def test_ping(server: Server, http: httpx.Client) -> None:
    ping = http.get(f"{server.url}/ping")
    assert (ping.status_code, ping.json()) == (200, {"status": "Healthy"})


def test_the_archives_settings_apply(server: Server, http: httpx.Client) -> None:
    [model] = http.get(f"{server.management_url}/models/shapes").json()
    assert model["batchSize"] == BATCH_SIZE
    assert [worker["status"] for worker in model["workers"]] == ["READY"]


def test_java_runs_with_the_options_of_config_properties(server: Server, repo_root: Path) -> None:
    options = read_properties(repo_root / "config.properties")["vmargs"].split()
    [java] = psutil.Process(server.process.pid).children()
    assert set(options) <= set(java.cmdline())


def test_models_cannot_be_registered(server: Server, http: httpx.Client, shapes_mar: Path) -> None:
    for url in ("https://example.com/evil.mar", str(shapes_mar)):
        rejected = http.post(f"{server.management_url}/models", params={"url": url})
        assert rejected.status_code == 405
    models = http.get(f"{server.management_url}/models").json()["models"]
    assert [model["modelName"] for model in models] == ["shapes"]


def test_requests_beyond_torchserves_default_limit_reach_the_handler(
    server: Server, http: httpx.Client
) -> None:
    body = bytes(20 * 1024**2)
    rejected = http.post(f"{server.url}/invocations", content=body)
    assert rejected.json()["error"]["code"] == "unsupported_media_type"


def test_metrics_have_the_prometheus_format(server: Server, http: httpx.Client) -> None:
    metrics = http.get(f"http://127.0.0.1:{server.ports.metrics}/metrics")
    assert metrics.status_code == 200
    assert "# TYPE ts_inference_requests_total counter" in metrics.text


def test_the_archives_own_copy_of_d2serve_serves(
    shapes_mar: Path, tmp_path: Path, http: httpx.Client, jpeg: Path
) -> None:
    """Another d2serve is installed in the environment of these tests."""
    folder = unpack(shapes_mar, tmp_path / "shapes")
    code = (folder / HANDLER_MODULE).read_text()
    alter(folder, {HANDLER_MODULE: code + ADD_HEADER})
    with running_server(folder, log_dir=tmp_path / "logs") as altered:
        response = image_body(jpeg).post(http, f"{altered.url}/invocations")
    assert response.status_code == 200
    assert response.headers["x-altered"] == str(folder / HANDLER_MODULE)
