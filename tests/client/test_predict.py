"""`d2serve predict` with an endpoint's name; tests/serving/test_commands.py tests it with a URL."""

import json
from pathlib import Path

import pytest

from d2serve.cli.main import invoke
from tests.client.conftest import KEYS, REGION, Connect, Session
from tests.client.runtime import Received, Response
from tests.environment import NO_ACCOUNT

RESPONSE = {"names": ["ball"], "scores": [0.9], "boxes": [[1, 2, 3, 4]]}


def respond(_: Received) -> Response:
    return Response(body=json.dumps(RESPONSE).encode())


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(b"bytes")
    return path


def test_endpoint_by_its_name(
    connect: Connect,
    aws: Session,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, runtime = connect("now", respond)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    keys = {name.upper(): value for name, value in KEYS.items()}
    for name, value in (NO_ACCOUNT | keys).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", runtime.url)
    arguments = ["--endpoint", "now", "--region", REGION, "--target-model", "a.tar.gz", "--json"]
    assert invoke(["predict", str(image), *arguments]) == 0
    assert json.loads(capsys.readouterr().out) == [{"file": str(image), "answer": RESPONSE}]
    [received] = runtime.received
    assert received.headers["x-amzn-sagemaker-target-model"] == "a.tar.gz"
    assert f"/{REGION}/sagemaker/" in received.headers["authorization"]
