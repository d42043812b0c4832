"""Settings of an endpoint through environment variables."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from d2serve.aws.containers import container_environment
from d2serve.aws.local_container import Container, running_container
from d2serve.servers.torchserve.launcher.server import CONSOLE
from tests.serving.contract.rows import Array, png_of
from tests.serving.prometheus import counted, sum_of
from tests.serving.served import request_line, workers_of

TIMEOUT_S = 300


def description(container: Container) -> dict[str, Any]:
    """TorchServe's description of the model."""
    url = f"{container.management_url}/models/{container.model_name}"
    [model] = httpx.get(url, timeout=60, trust_env=False).json()
    described: dict[str, Any] = model
    return described


def test_torchserve_uses_the_settings_of_deploy(container: Container) -> None:
    described = description(container)
    assert described["batchSize"] == 8
    assert described["maxBatchDelay"] == 10
    assert (described["minWorkers"], described["maxWorkers"]) == (1, 1)
    assert (described["responseTimeout"], described["startupTimeout"]) == (600, 300)


def test_an_operators_own_settings_take_precedence(
    repo_root: Path, package: Path, tmp_path: Path, http: httpx.Client, image: Array
) -> None:
    own = {
        "SAGEMAKER_TS_BATCH_SIZE": "3",
        "SAGEMAKER_TS_MAX_BATCH_DELAY": "7",
        "SAGEMAKER_TS_MIN_WORKERS": "2",
        "SAGEMAKER_TS_MAX_WORKERS": "2",
        "SAGEMAKER_TS_RESPONSE_TIMEOUT": "33",
        "TS_MAX_REQUEST_SIZE": "50000",
        "D2SERVE_MAX_IMAGE_PIXELS": "100",
        **documented_metrics(repo_root),
    }
    environment = container_environment("realtime", own)
    with running_container(package, environment, log_dir=tmp_path / "logs") as container:
        container.wait_until_healthy(TIMEOUT_S)
        described = description(container)
        assert described["batchSize"] == 3
        assert described["maxBatchDelay"] == 7
        assert (described["minWorkers"], described["maxWorkers"]) == (2, 2)
        assert described["responseTimeout"] == 33
        assert len(workers_of(container)) == 2
        url = f"{container.url}/invocations"
        too_many_bytes = http.post(url, content=bytes(50_001))
        assert too_many_bytes.status_code == 413
        too_many_pixels = png_of(image[:11, :10]).post(http, url)
        assert too_many_pixels.json()["error"]["code"] == "too_large"
        assert png_of(image[:10, :10]).post(http, url).status_code == 200
        added = counted(
            container.ports,
            Counter(),
            lambda now: sum_of(now, "d2serve_request_seconds_count") == 2,
        )
        # The container is healthy when the first of the two has started.
        assert sum_of(added, "d2serve_worker_starts_total") >= 1
        assert sum_of(added, "d2serve_pixels_total") == 100


def test_metrics_do_not_fill_the_log(
    container: Container, http: httpx.Client, image: Array
) -> None:
    response = png_of(image).post(http, f"{container.url}/invocations")
    request_line(container, response.headers["x-request-id"])
    console = container.logs.text(CONSOLE)
    assert response.headers["x-request-id"] in console
    assert "[METRICS]d2serve" not in console


def documented_metrics(repo_root: Path) -> dict[str, str]:
    """The variables of docs/operating.md except the address, which uses a free port here."""
    page = (repo_root / "docs" / "operating.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(TS_METRICS_\w+)` \| `(\S+)` \|$", page, re.MULTILINE)
    assert len(rows) == 3
    return {name: value for name, value in rows if name != "TS_METRICS_ADDRESS"}
