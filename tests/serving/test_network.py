"""A server that other machines can reach: tokens, TLS and open ports.

`d2serve serve` listens on all addresses of both families, with an elliptic curve key. The tests
send their requests from this machine.
"""

import json
import re
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from d2serve.cli.main import invoke
from d2serve.servers.exposure import ANY_IPV6, Certificate
from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.launcher.server import MODEL, ServerLogs
from tests.certificates import self_signed_ec
from tests.environment import clean_environment
from tests.serving.served import connections_of, read_until_written

pytestmark = pytest.mark.serving

# The status of TorchServe's own APIs, which have no proxy.
REJECTED_BY_TORCHSERVE = 400


@dataclass(frozen=True)
class ExposedServer:
    """A running `d2serve serve --address :: --certificate FILE --key FILE`."""

    port: int
    startup_lines: list[str]
    process: "subprocess.Popen[str]"
    logs: Path
    certificate: Certificate

    @property
    def url(self) -> str:
        return f"https://{LOOPBACK}:{self.port}"

    @property
    def key_file(self) -> Path:
        [found] = re.findall(r"TOKEN is inference\.key in (.*)", "\n".join(self.startup_lines))
        return Path(found)

    def tokens(self) -> dict[str, str]:
        content: dict[str, Any] = json.loads(self.key_file.read_text())
        return {api: section["key"] for api, section in content.items()}


@pytest.fixture(scope="module")
def exposed(
    repo_root: Path, shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ExposedServer]:
    port = Ports.free().inference
    certificate = self_signed_ec(tmp_path_factory.mktemp("certificate"))
    command = [sys.executable, "-m", "d2serve.cli.main", "serve", str(shapes_mar)]
    command += ["--port", str(port), "--address", ANY_IPV6]
    command += ["--certificate", str(certificate.chain), "--key", str(certificate.key)]
    folder = repo_root / "logs" / f"serve-{port}"
    logs = ServerLogs(folder)
    with subprocess.Popen(
        command, cwd=repo_root, env=clean_environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        startup_lines = [process.stdout.readline().rstrip() for _ in range(3)]
        try:
            yield ExposedServer(port, startup_lines, process, logs.folder, certificate)
        finally:
            process.terminate()
            process.communicate()


@pytest.fixture(scope="module")
def http(exposed: ExposedServer) -> Iterator[httpx.Client]:
    """A client that trusts only the server's certificate."""
    trust = ssl.create_default_context(cafile=exposed.certificate.chain)
    with httpx.Client(verify=trust, trust_env=False, timeout=60) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no-token"),
        pytest.param(bearer("AAAAAAAA"), id="another-token"),
        pytest.param({"Authorization": "Basic AAAAAAAA"}, id="basic"),
    ],
)
@pytest.mark.parametrize(
    "route", ["/invocations", "/predictions/shapes", "/v1/models/shapes:predict"]
)
def test_requests_without_the_token_are_rejected(
    exposed: ExposedServer, http: httpx.Client, jpeg: Path, route: str, headers: dict[str, str]
) -> None:
    response = http.post(f"{exposed.url}{route}", content=jpeg.read_bytes(), headers=headers)
    assert response.status_code == httpx.codes.UNAUTHORIZED
    assert response.headers["www-authenticate"].startswith("Bearer")
    error = response.json()["error"]
    assert error["code"] == "unauthorized"
    assert error["message"] == "the token is missing, wrong or expired"
    ping = http.get(f"{exposed.url}/ping", headers=headers)
    assert ping.status_code == httpx.codes.UNAUTHORIZED


@pytest.mark.parametrize("api", ["management", "API"])
def test_tokens_of_other_apis_are_rejected(
    exposed: ExposedServer, http: httpx.Client, jpeg: Path, api: str
) -> None:
    headers = bearer(exposed.tokens()[api])
    response = http.post(f"{exposed.url}/invocations", content=jpeg.read_bytes(), headers=headers)
    assert response.status_code == httpx.codes.UNAUTHORIZED


def test_requests_with_the_token_are_processed(
    exposed: ExposedServer, http: httpx.Client, jpeg: Path
) -> None:
    headers = bearer(exposed.tokens()["inference"])
    response = http.post(f"{exposed.url}/invocations", content=jpeg.read_bytes(), headers=headers)
    assert response.json()["names"]
    assert http.get(f"{exposed.url}/ping", headers=headers).json() == {"status": "Healthy"}


def test_the_server_is_reachable_by_ipv6(
    exposed: ExposedServer, http: httpx.Client, jpeg: Path
) -> None:
    url = f"https://[::1]:{exposed.port}/invocations"
    assert http.post(url, content=jpeg.read_bytes()).status_code == httpx.codes.UNAUTHORIZED
    headers = bearer(exposed.tokens()["inference"])
    assert http.post(url, content=jpeg.read_bytes(), headers=headers).json()["names"]


def test_the_startup_message_shows_a_request_and_no_token(exposed: ExposedServer) -> None:
    served, reached, token = exposed.startup_lines
    assert '-H "Authorization: Bearer TOKEN"' in served
    assert f"--cacert {exposed.certificate.chain}" in served
    assert f"[::]:{exposed.port}" in reached
    assert "inference.key" in token
    assert not [key for key in exposed.tokens().values() if key in "".join(exposed.startup_lines)]


def test_logs_contain_no_token(exposed: ExposedServer, http: httpx.Client) -> None:
    tokens = exposed.tokens()
    http.get(f"{exposed.url}/ping", headers=bearer(tokens["inference"]))
    read_until_written(lambda: "/ping" in (exposed.logs / "access_log.log").read_text())
    logs = {path.name: path.read_text() for path in exposed.logs.glob("*.log")}
    assert not [name for name, text in logs.items() for key in tokens.values() if key in text]


def test_only_the_owner_can_read_the_tokens(exposed: ExposedServer) -> None:
    assert stat.S_IMODE(exposed.key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(exposed.key_file.parent.stat().st_mode) == 0o700


def test_only_the_inference_api_is_exposed(exposed: ExposedServer) -> None:
    server = psutil.Process(exposed.process.pid)
    listening = {
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for process in server.children(recursive=True)
        for connection in connections_of(process)
        if connection.status == psutil.CONN_LISTEN
    }
    others = {port for address, port in listening if address != LOOPBACK}
    assert others == {exposed.port}
    # Management, metrics and two of gRPC.
    assert len(listening) >= 5


def test_the_management_api_has_its_own_token(exposed: ExposedServer, http: httpx.Client) -> None:
    url = f"http://{LOOPBACK}:{exposed.port + 1}/models"
    tokens = exposed.tokens()
    assert http.get(url).status_code == REJECTED_BY_TORCHSERVE
    assert http.get(url, headers=bearer(tokens["inference"])).status_code == REJECTED_BY_TORCHSERVE
    assert http.get(url, headers=bearer(tokens["management"])).status_code == 200


def test_a_token_can_be_renewed(exposed: ExposedServer, http: httpx.Client) -> None:
    before = exposed.tokens()
    renew = f"http://{LOOPBACK}:{exposed.port + 1}/token?type=inference"
    assert http.get(renew, headers=bearer(before["API"])).status_code == 200
    after = exposed.tokens()
    ping = f"{exposed.url}/ping"
    outdated = http.get(ping, headers=bearer(before["inference"]))
    assert outdated.status_code == httpx.codes.UNAUTHORIZED
    assert http.get(ping, headers=bearer(after["inference"])).status_code == 200


def test_clients_that_do_not_trust_the_certificate_send_nothing(
    exposed: ExposedServer, jpeg: Path
) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.post(
            f"{exposed.url}/invocations", content=jpeg.read_bytes(), timeout=60, trust_env=False
        )


def test_plain_http_is_rejected(exposed: ExposedServer, http: httpx.Client) -> None:
    headers = bearer(exposed.tokens()["inference"])
    with pytest.raises(httpx.RemoteProtocolError, match="disconnected"):
        http.get(f"http://{LOOPBACK}:{exposed.port}/ping", headers=headers)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_old_versions_of_tls_are_rejected(exposed: ExposedServer, version: ssl.TLSVersion) -> None:
    old = ssl.create_default_context(cafile=exposed.certificate.chain)
    old.minimum_version = old.maximum_version = version
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(httpx.ConnectError, match="SSL"):
        httpx.get(f"{exposed.url}/ping", verify=old, timeout=60, trust_env=False)


def test_predict_uses_token_and_certificate(
    exposed: ExposedServer,
    jpeg: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["predict", str(jpeg), "--json", "--url", f"{exposed.url}/invocations"]
    trusting = [*arguments, "--ca", str(exposed.certificate.chain)]
    monkeypatch.delenv("D2SERVE_TOKEN", raising=False)
    assert invoke(trusting) == 1
    assert invoke(arguments) == 1
    monkeypatch.setenv("D2SERVE_TOKEN", exposed.tokens()["inference"])
    assert invoke(trusting) == 0
    rejected, distrusted, predicted = map(json.loads, capsys.readouterr().out.splitlines())
    assert rejected[0]["error"]["code"] == "unauthorized"
    assert "the token is missing" in rejected[0]["error"]["message"]
    assert distrusted[0]["error"]["code"] == "not_trusted"
    assert predicted[0]["answer"]["names"]


def test_draining_works_with_tokens(exposed: ExposedServer) -> None:
    """Draining uses gRPC, which requires the token too."""
    log = (exposed.logs / MODEL).read_text()
    assert "Connection accepted" in log
    assert "SIGTERM will not wait" not in log
