"""`d2serve serve --server ray` with two models: tokens, overload, metrics, faults, and its end."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.serving.asgi_server import AsgiServer
from tests.serving.faults.faulty import wait_until
from tests.serving.ray_server import RAY_PYTHON, running_ray_server
from tests.serving.served import read_until_written

CLIENTS = 12
TOKEN, ORIGIN = "a-token-of-the-operator", "https://example.org"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
ALLOW = "access-control-allow-origin"


@pytest.fixture(scope="module")
def two_models(shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsgiServer]:
    """Two models with a token and --cors-origin; each admits two requests at a time."""
    other = Path(shutil.copy(shapes_mar, tmp_path_factory.mktemp("other") / "other.mar"))
    with running_ray_server(
        shapes_mar,
        log_dir=tmp_path_factory.mktemp("ray-logs"),
        environment={"D2SERVE_MAX_QUEUED_REQUESTS": "2", "D2SERVE_SERVER_TOKEN": TOKEN},
        arguments=[str(other), "--cors-origin", ORIGIN],
        ready_route="/other/ping",
    ) as server:
        yield server


@pytest.fixture(scope="module")
def jpeg(shapes: Path) -> Path:
    return next((shapes / "samples").glob("*.jpg"))


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """A client with the token."""
    with httpx.Client(timeout=60, trust_env=False, headers=HEADERS) as client:
        yield client


def test_each_model_is_an_application_of_its_own(
    two_models: AsgiServer, client: httpx.Client
) -> None:
    for name in ("shapes", "other"):
        base = f"{two_models.url}/{name}"
        assert client.get(f"{base}/ping").json() == {"status": "Healthy"}
        assert client.get(f"{base}/v2/models/{name}").json()["name"] == name
    missing = client.get(f"{two_models.url}/shapes/v2/models/other")
    assert missing.status_code == 404
    assert "error" in missing.json()


def test_requests_need_the_token_and_health_checks_do_not(two_models: AsgiServer) -> None:
    base = f"{two_models.url}/shapes"
    with httpx.Client(timeout=60, trust_env=False) as client:
        for authorization in ({}, {"Authorization": "Bearer AAAAAAAA"}):
            response = client.post(f"{base}/invocations", content=b"?", headers=authorization)
            assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthorized")
            assert response.headers["www-authenticate"].startswith("Bearer")
        assert client.get(f"{base}/ping").json() == {"status": "Healthy"}


def test_web_pages_of_permitted_origins_can_use_the_model(
    two_models: AsgiServer, client: httpx.Client
) -> None:
    url = f"{two_models.url}/shapes/invocations"
    preflight = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    permitted = client.options(url, headers=preflight)
    assert permitted.is_success, permitted.text
    assert permitted.headers[ALLOW] == ORIGIN
    assert permitted.headers["access-control-allow-headers"] == "authorization,content-type"
    refused = client.options(url, headers={**preflight, "Origin": "https://a"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_request")
    for origin, allowed in ((ORIGIN, ORIGIN), ("https://a", None)):
        response = client.post(url, content=b"?", headers={"Origin": origin})
        assert response.status_code == 415, response.text
        assert response.headers.get(ALLOW) == allowed
        assert response.headers["vary"] == "Origin"


def test_the_page_of_each_model_is_below_its_route_prefix(
    two_models: AsgiServer, client: httpx.Client
) -> None:
    page = client.get(f"{two_models.url}/shapes", follow_redirects=True)
    assert str(page.url) == f"{two_models.url}/shapes/"
    config = client.get(page.url.join("playground/config.json")).json()
    assert config["models"] == ["shapes"]


def test_an_overloaded_replica_responds_as_the_contract_defines(
    two_models: AsgiServer, client: httpx.Client, jpeg: Path
) -> None:
    body, url = jpeg.read_bytes(), f"{two_models.url}/shapes/invocations"

    def post(_: int) -> httpx.Response:
        return client.post(url, content=body)

    with ThreadPoolExecutor(CLIENTS) as clients:
        responses = list(clients.map(post, range(4 * CLIENTS)))
    statuses = {response.status_code for response in responses}
    assert statuses == {200, 503}
    for response in responses:
        if response.status_code == 503:
            assert response.json()["error"]["code"] == "overloaded"
            assert int(response.headers["retry-after"]) >= 1


def test_the_metrics_are_those_of_ray_too(
    two_models: AsgiServer, client: httpx.Client, jpeg: Path
) -> None:
    url = f"{two_models.url}/other/invocations"
    assert client.post(url, content=jpeg.read_bytes()).status_code == 200

    def requests_of_other() -> list[str]:
        lines = _metrics_of(two_models, client).splitlines()
        counts = [line for line in lines if line.startswith("ray_d2serve_requests_total{")]
        return [line for line in counts if 'ModelName="other"' in line and 'Status="200"' in line]

    [line] = read_until_written(requests_of_other)
    assert 'application="other"' in line
    assert float(line.split()[-1]) == 1


def test_a_killed_replica_is_replaced_and_each_request_gets_one_response(
    two_models: AsgiServer, client: httpx.Client, jpeg: Path
) -> None:
    url, body = f"{two_models.url}/shapes/invocations", jpeg.read_bytes()
    expected = client.post(url, content=body).json()
    [replica] = _replicas_of("shapes", two_models)
    is_done = threading.Event()

    def post() -> httpx.Response | None:
        """None for a connection that ended; a timeout is an error."""
        with suppress(httpx.NetworkError, httpx.RemoteProtocolError):
            return httpx.post(url, content=body, headers=HEADERS, timeout=60, trust_env=False)
        return None

    def send() -> list[httpx.Response | None]:
        received = []
        while not is_done.wait(0.05):
            received.append(post())
        return received

    def is_replaced() -> bool:
        others = [each for each in _replicas_of("shapes", two_models) if each != replica]
        return bool(others) and client.post(url, content=body).status_code == 200

    with ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(send) for _ in range(2)]
        try:
            replica.kill()
            assert client.get(f"{two_models.url}/other/ping").status_code == 200
            wait_until(is_replaced)
        finally:
            is_done.set()
    responses = [response for each in clients for response in each.result()]
    good = [each for each in responses if each is not None and each.status_code == 200]
    assert all(each.json()["classes"] == expected["classes"] for each in good)
    assert {each.status_code for each in responses if each is not None} <= {200, 500, 503}


def test_a_signal_ends_all_processes(two_models: AsgiServer) -> None:
    """The last test of the module's server."""
    command = psutil.Process(two_models.process.pid)
    family = command.children(recursive=True)
    assert len(family) > 5
    command.terminate()
    assert two_models.process.wait(timeout=120) == 0
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []


def test_a_model_that_cannot_be_loaded_ends_the_command(shapes_mar: Path, tmp_path: Path) -> None:
    environment = {"D2SERVE_PRECISION": "fp99", "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(
        [str(RAY_PYTHON), "-m", "d2serve.cli.main", "serve", str(shapes_mar), "--server", "ray"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 1
    assert "error: handler setting precision is 'fp99'" in ended.stderr


def _replicas_of(name: str, server: AsgiServer) -> list[psutil.Process]:
    members = psutil.Process(server.process.pid).children(recursive=True)
    title = f"ray::ServeReplica:{name}:"
    found = []
    for each in members:
        with suppress(psutil.NoSuchProcess):
            if "".join(each.cmdline()).startswith(title):
                found.append(each)
    return found


def _metrics_of(server: AsgiServer, client: httpx.Client) -> str:
    """The metrics that Ray's agent exports, on one of its ports."""
    members = psutil.Process(server.process.pid).children(recursive=True)
    [agent] = [each for each in members if "DashboardAgent" in each.cmdline()[0]]
    for connection in agent.net_connections("tcp"):
        if connection.status != psutil.CONN_LISTEN:
            continue
        try:
            text = client.get(f"http://127.0.0.1:{connection.laddr.port}/metrics", timeout=5).text
        except httpx.TransportError:  # another protocol
            continue
        if "ray_" in text:
            return text
    return ""
