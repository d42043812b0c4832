"""`make predict` by an endpoint's name; by a URL: tests/serving/test_commands.py."""

import json
from pathlib import Path

import pytest

from d2serve.cli import predict
from tests.client.conftest import KEYS, REGION, Invoke, Session
from tests.client.runtime import Answered, Asked
from tests.environment import NO_ACCOUNT

FOUND = {"names": ["ball"], "scores": [0.9], "boxes": [[1, 2, 3, 4]]}


def found(_: Asked) -> Answered:
    return Answered(body=json.dumps(FOUND).encode())


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(b"bytes")
    return path


def test_an_endpoint_is_asked_by_its_name(
    invoke: Invoke,
    aws: Session,
    picture: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, runtime = invoke("now", found)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    keys = {name.upper(): value for name, value in KEYS.items()}
    for name, value in (NO_ACCOUNT | keys).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", runtime.url)
    arguments = ["--endpoint", "now", "--region", REGION, "--target-model", "a.tar.gz", "--json"]
    assert predict.main([str(picture), *arguments]) == 0
    assert json.loads(capsys.readouterr().out) == [{"file": str(picture), "answer": FOUND}]
    [asked] = runtime.asked
    assert asked.headers["x-amzn-sagemaker-target-model"] == "a.tar.gz"
    assert f"/{REGION}/sagemaker/" in asked.headers["authorization"]
