"""A server that others can reach: who gets in, and what they can read on the way.

`make serve` bound to all addresses of both kinds, with an elliptic curve's key, asked through this
machine's own.
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

from d2serve.cli import predict
from d2serve.servers.torchserve.launcher.network import ANY_IPV6, Certificate
from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.launcher.server import MODEL, ServerLogs
from tests.certificates import self_signed_ec
from tests.environment import clean_environment

pytestmark = pytest.mark.serving

REFUSED_BY_TORCHSERVE = 400


@dataclass(frozen=True)
class Opened:
    """`make serve ADDRESS=:: CERTIFICATE= KEY=`, running."""

    port: int
    greeting: list[str]
    process: "subprocess.Popen[str]"
    logs: Path
    certificate: Certificate

    @property
    def url(self) -> str:
        return f"https://{LOOPBACK}:{self.port}"

    @property
    def key_file(self) -> Path:
        [found] = re.findall(r"TOKEN is inference\.key in (.*)", "\n".join(self.greeting))
        return Path(found)

    def tokens(self) -> dict[str, str]:
        content: dict[str, Any] = json.loads(self.key_file.read_text())
        return {api: section["key"] for api, section in content.items()}


@pytest.fixture(scope="module")
def opened(
    repo_root: Path, shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Opened]:
    port = Ports.free().inference
    certificate = self_signed_ec(tmp_path_factory.mktemp("certificate"))
    command = [sys.executable, "-m", "d2serve.cli.serve", "--model", str(shapes_mar)]
    command += ["--port", str(port), "--address", ANY_IPV6]
    command += ["--certificate", str(certificate.chain), "--key", str(certificate.key)]
    folder = repo_root / "logs" / f"serve-{port}"
    logs = ServerLogs(folder)
    with subprocess.Popen(
        command, cwd=repo_root, env=clean_environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        greeting = [process.stdout.readline().rstrip() for _ in range(3)]
        try:
            yield Opened(port, greeting, process, logs.folder, certificate)
        finally:
            process.terminate()
            process.communicate()


@pytest.fixture(scope="module")
def http(opened: Opened) -> Iterator[httpx.Client]:
    """A client that trusts the server's certificate and nothing else."""
    trust = ssl.create_default_context(cafile=opened.certificate.chain)
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
    "route", ["/invocations", "/predictions/shapes", "/v1/models/shapes:predict", "/models"]
)
def test_without_the_token_nothing_is_answered(
    opened: Opened, http: httpx.Client, jpeg: Path, route: str, headers: dict[str, str]
) -> None:
    answer = http.post(f"{opened.url}{route}", content=jpeg.read_bytes(), headers=headers)
    assert answer.status_code == REFUSED_BY_TORCHSERVE
    assert answer.json()["error"]["message"] == "the token is missing, wrong or expired"
    assert http.get(f"{opened.url}/ping", headers=headers).status_code == REFUSED_BY_TORCHSERVE


@pytest.mark.parametrize("api", ["management", "API"])
def test_tokens_of_other_apis_do_not_open_this_one(
    opened: Opened, http: httpx.Client, jpeg: Path, api: str
) -> None:
    headers = bearer(opened.tokens()[api])
    answer = http.post(f"{opened.url}/invocations", content=jpeg.read_bytes(), headers=headers)
    assert answer.status_code == REFUSED_BY_TORCHSERVE


def test_with_the_token_pictures_are_answered(
    opened: Opened, http: httpx.Client, jpeg: Path
) -> None:
    headers = bearer(opened.tokens()["inference"])
    answer = http.post(f"{opened.url}/invocations", content=jpeg.read_bytes(), headers=headers)
    assert answer.json()["names"]
    assert http.get(f"{opened.url}/ping", headers=headers).json() == {"status": "Healthy"}


def test_it_is_reached_by_ipv6_too(opened: Opened, http: httpx.Client, jpeg: Path) -> None:
    url = f"https://[::1]:{opened.port}/invocations"
    assert http.post(url, content=jpeg.read_bytes()).status_code == REFUSED_BY_TORCHSERVE
    headers = bearer(opened.tokens()["inference"])
    assert http.post(url, content=jpeg.read_bytes(), headers=headers).json()["names"]


def test_the_greeting_says_how_to_ask_and_holds_no_token(opened: Opened) -> None:
    served, reached, token = opened.greeting
    assert '-H "Authorization: Bearer TOKEN"' in served
    assert f"--cacert {opened.certificate.chain}" in served
    assert f"[::]:{opened.port}" in reached
    assert "inference.key" in token
    assert not [key for key in opened.tokens().values() if key in "".join(opened.greeting)]


def test_no_log_holds_a_token(opened: Opened, http: httpx.Client) -> None:
    tokens = opened.tokens()
    http.get(f"{opened.url}/ping", headers=bearer(tokens["inference"]))
    logs = {path.name: path.read_text() for path in opened.logs.glob("*.log")}
    assert "/ping" in logs["access_log.log"]
    assert not [name for name, text in logs.items() for key in tokens.values() if key in text]


def test_the_tokens_are_their_owners_alone(opened: Opened) -> None:
    assert stat.S_IMODE(opened.key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(opened.key_file.parent.stat().st_mode) == 0o700


def test_only_the_inference_api_listens_to_others(opened: Opened) -> None:
    server = psutil.Process(opened.process.pid)
    listening = {
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for process in server.children(recursive=True)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    others = {port for address, port in listening if address != LOOPBACK}
    assert others == {opened.port}
    # Management, metrics and two of gRPC.
    assert len(listening) >= 5


def test_the_management_api_has_a_token_of_its_own(opened: Opened, http: httpx.Client) -> None:
    url = f"http://{LOOPBACK}:{opened.port + 1}/models"
    tokens = opened.tokens()
    assert http.get(url).status_code == REFUSED_BY_TORCHSERVE
    assert http.get(url, headers=bearer(tokens["inference"])).status_code == REFUSED_BY_TORCHSERVE
    assert http.get(url, headers=bearer(tokens["management"])).status_code == 200


def test_a_token_can_be_drawn_anew(opened: Opened, http: httpx.Client) -> None:
    before = opened.tokens()
    renew = f"http://{LOOPBACK}:{opened.port + 1}/token?type=inference"
    assert http.get(renew, headers=bearer(before["API"])).status_code == 200
    after = opened.tokens()
    ping = f"{opened.url}/ping"
    assert http.get(ping, headers=bearer(before["inference"])).status_code == REFUSED_BY_TORCHSERVE
    assert http.get(ping, headers=bearer(after["inference"])).status_code == 200


def test_who_does_not_know_the_certificate_sends_nothing(opened: Opened, jpeg: Path) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.post(f"{opened.url}/invocations", content=jpeg.read_bytes(), trust_env=False)


def test_plain_http_is_refused(opened: Opened, http: httpx.Client) -> None:
    headers = bearer(opened.tokens()["inference"])
    with pytest.raises(httpx.RemoteProtocolError, match="disconnected"):
        http.get(f"http://{LOOPBACK}:{opened.port}/ping", headers=headers)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_old_versions_of_tls_are_refused(opened: Opened, version: ssl.TLSVersion) -> None:
    old = ssl.create_default_context(cafile=opened.certificate.chain)
    old.minimum_version = old.maximum_version = version
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(httpx.ConnectError, match="SSL"):
        httpx.get(f"{opened.url}/ping", verify=old, trust_env=False)


def test_make_predict_takes_token_and_certificate(
    opened: Opened,
    jpeg: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [str(jpeg), "--json", "--url", f"{opened.url}/invocations"]
    trusting = [*arguments, "--ca", str(opened.certificate.chain)]
    monkeypatch.delenv("D2SERVE_TOKEN", raising=False)
    assert predict.main(trusting) == 1
    assert predict.main(arguments) == 1
    monkeypatch.setenv("D2SERVE_TOKEN", opened.tokens()["inference"])
    assert predict.main(trusting) == 0
    refused, distrusted, answered = map(json.loads, capsys.readouterr().out.splitlines())
    assert refused[0]["error"]["code"] == "bad_request"
    assert "the token is missing" in refused[0]["error"]["message"]
    assert distrusted[0]["error"]["code"] == "not_trusted"
    assert answered[0]["answer"]["names"]


def test_the_worker_can_still_hold_the_server_back_from_stopping(opened: Opened) -> None:
    """Draining asks by gRPC, which wants the token too."""
    log = (opened.logs / MODEL).read_text()
    assert "Connection accepted" in log
    assert "SIGTERM will not wait" not in log
