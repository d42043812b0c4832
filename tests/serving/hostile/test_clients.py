"""Usual HTTP clients send an image and receive the prediction.

Where `ab` and nginx are not installed, their requests are imitated byte by byte.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import httpx
import pytest
from tenacity import retry, stop_after_delay, wait_fixed

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from tests.environment import clean_environment
from tests.serving.hostile.conftest import Target
from tests.serving.hostile.wire import Response, Wire
from tests.serving.traffic import assert_same_prediction

pytestmark = pytest.mark.serving

NODE_MAJOR = 20  # the first release with `ReadableStream.from`
FETCH = Path(__file__).with_name("fetch.mjs")
TIMEOUT_S = 60


@pytest.fixture(scope="session")
def expected(target: Target, jpeg: Path) -> dict[str, Any]:
    """The prediction that httpx receives."""
    return predict(target, jpeg)


def predict(target: Target, jpeg: Path) -> dict[str, Any]:
    with httpx.Client(base_url=target.url, timeout=TIMEOUT_S, trust_env=False) as client:
        responses = [client.post("/invocations", content=jpeg.read_bytes()) for _ in range(3)]
    assert [each.status_code for each in responses] == [200] * 3
    prediction: dict[str, Any] = responses[0].json()
    return prediction


def run(command: Sequence[str]) -> str:
    """The output of a command; proxies of the environment are not used."""
    environment = {
        name: value
        for name, value in clean_environment().items()
        if not name.lower().endswith("_proxy")
    }
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def send_raw(target: Target, message: bytes) -> Response:
    """Send a request over a connection that the server has to close."""
    with closing(Wire(target.address)) as wire:
        wire.socket.sendall(message)
        response = wire.receive()
        assert wire.is_closed()
    assert response is not None
    return response


def test_httpx(target: Target, jpeg: Path, expected: dict[str, Any]) -> None:
    url = f"{target.url}/invocations"
    files = {"image": ("a.jpg", jpeg.read_bytes())}
    form = httpx.post(url, files=files, timeout=TIMEOUT_S, trust_env=False)
    assert_same_prediction(form.json(), expected)
    pieces = (jpeg.read_bytes()[start : start + 1000] for start in range(0, 10**6, 1000))
    streamed = httpx.post(url, content=pieces, timeout=TIMEOUT_S, trust_env=False)
    assert_same_prediction(streamed.json(), expected)


def test_python_urllib(target: Target, jpeg: Path, expected: dict[str, Any]) -> None:
    request = Request(f"{target.url}/invocations", jpeg.read_bytes())
    with urlopen(request, timeout=TIMEOUT_S) as response:
        assert_same_prediction(json.load(response), expected)


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--data-binary", "@{file}"], id="data"),
        pytest.param(["-T", "{file}"], id="upload"),
        pytest.param(["-F", "image=@{file}"], id="form"),
        pytest.param(["--http1.0", "--data-binary", "@{file}"], id="HTTP/1.0"),
        pytest.param(["--http2", "--data-binary", "@{file}"], id="HTTP/2 by upgrade"),
        pytest.param(
            ["-H", "Transfer-Encoding: chunked", "--data-binary", "@{file}"], id="chunked"
        ),
        pytest.param(["-H", "Expect: 100-continue", "--data-binary", "@{file}"], id="Expect"),
        pytest.param(["-H", "Connection: close", "--data-binary", "@{file}"], id="close"),
        pytest.param(["--compressed", "--data-binary", "@{file}"], id="compressed"),
    ],
)
def test_curl(
    target: Target, jpeg: Path, expected: dict[str, Any], arguments: Sequence[str]
) -> None:
    route = "/predictions/shapes" if "-T" in arguments else "/invocations"
    options = [argument.format(file=jpeg) for argument in arguments]
    output = run(["curl", "-sS", "--fail-with-body", *options, target.url + route])
    assert_same_prediction(json.loads(output), expected)


def test_node_fetch(target: Target, jpeg: Path, expected: dict[str, Any]) -> None:
    node = shutil.which("node")
    if node is None or int(run([node, "--version"]).lstrip("v").partition(".")[0]) < NODE_MAJOR:
        pytest.skip(f"Node {NODE_MAJOR} is not installed")
    responses = json.loads(run([node, str(FETCH), f"{target.url}/invocations", str(jpeg)]))
    assert len(responses) == 9
    for kind, received in responses.items():
        assert received["status"] == 200, f"{kind}: {received}"
        assert_same_prediction(received["prediction"], expected)


def ab_request(target: Target, body: bytes, *fields: str) -> bytes:
    """The bytes that ApacheBench 2.4 sends for `ab -p FILE -T image/jpeg URL`."""
    host, port = target.address
    lines = [
        "POST /invocations HTTP/1.0",
        *fields,
        f"Content-length: {len(body)}",
        "Content-type: image/jpeg",
        f"Host: {host}:{port}",
        "User-Agent: ApacheBench/2.3",
        "Accept: */*",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_requests_of_ab_without_keep_alive(
    target: Target, jpeg: Path, expected: dict[str, Any]
) -> None:
    message = ab_request(target, jpeg.read_bytes())
    with ThreadPoolExecutor(8) as clients:
        responses = list(clients.map(lambda _: send_raw(target, message), range(40)))
    for response in responses:
        assert response.status == 200
        assert_same_prediction(response.json(), expected)


def test_request_of_ab_with_keep_alive(
    target: Target, jpeg: Path, expected: dict[str, Any]
) -> None:
    message = ab_request(target, jpeg.read_bytes(), "Connection: Keep-Alive")
    with closing(Wire(target.address)) as wire:
        wire.socket.sendall(message)
        response = wire.receive()
    assert response is not None
    assert_same_prediction(response.json(), expected)
    # ab reads the length of the body only if the server offers to keep the connection.
    assert response.headers["content-length"] == str(len(response.body))


@pytest.mark.skipif(not shutil.which("ab"), reason="ab (apache2-utils) is not installed")
def test_ab(target: Target, jpeg: Path) -> None:
    options = ["-n", "50", "-c", "8", "-p", str(jpeg), "-T", "image/jpeg"]
    output = run(["ab", *options, f"{target.url}/invocations"])
    assert "Complete requests:      50" in output
    assert "Failed requests:        0" in output
    assert "Non-2xx responses" not in output


def nginx_request(body: bytes) -> bytes:
    """The bytes that nginx sends by `proxy_pass` with its defaults."""
    lines = [
        "POST /invocations HTTP/1.0",
        "Host: upstream",
        "Connection: close",
        f"Content-Length: {len(body)}",
        "User-Agent: curl/7.88.1",
        "Accept: */*",
        "Content-Type: image/jpeg",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_request_of_nginx_with_its_default_upstream(
    target: Target, jpeg: Path, expected: dict[str, Any]
) -> None:
    response = send_raw(target, nginx_request(jpeg.read_bytes()))
    assert response.status == 200
    # HTTP/1.0 has no chunks.
    assert "transfer-encoding" not in response.headers
    assert_same_prediction(response.json(), expected)


NGINX_CONFIG = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_max_body_size 100m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen {listen};
    location / {{ proxy_pass {upstream}; {options} }}
  }}
}}
"""


@pytest.fixture(params=["", "proxy_http_version 1.1;"], ids=["defaults", "HTTP/1.1"])
def nginx_url(request: pytest.FixtureRequest, target: Target, tmp_path: Path) -> Iterator[str]:
    """The base URL of an nginx in front of the server."""
    command = shutil.which("nginx")
    if command is None:
        pytest.skip("nginx is not installed")
    listen = f"{LOOPBACK}:{Ports.free().inference}"
    config = tmp_path / "nginx.conf"
    config.write_text(
        NGINX_CONFIG.format(
            folder=tmp_path, listen=listen, upstream=target.url, options=request.param
        )
    )
    arguments = [command, "-p", str(tmp_path), "-e", "error.log", "-c", str(config)]
    with subprocess.Popen(arguments) as process:
        try:
            wait_until_open(f"http://{listen}/ping")
            yield f"http://{listen}"
        finally:
            process.terminate()


@retry(stop=stop_after_delay(TIMEOUT_S), wait=wait_fixed(0.1))
def wait_until_open(url: str) -> None:
    httpx.get(url, trust_env=False)


def test_nginx_in_front(nginx_url: str, jpeg: Path, expected: dict[str, Any]) -> None:
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
        for _ in range(3):
            response = client.post(f"{nginx_url}/invocations", content=jpeg.read_bytes())
            assert response.status_code == 200
            assert_same_prediction(response.json(), expected)
        rejected = client.post(f"{nginx_url}/invocations", content=b"not an image")
        assert rejected.status_code == 415
        assert rejected.json()["error"]["code"] == "unsupported_media_type"
