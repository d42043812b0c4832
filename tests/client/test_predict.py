"""`d2serve predict` and the clients with an endpoint's name; other tests have a URL."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import d2serve
from d2serve.cli.main import invoke
from d2serve.detections import Detections
from tests.client.conftest import KEYS, REGION, Connect, Session
from tests.client.runtime import Received, Response, Runtime
from tests.environment import NO_ACCOUNT

RESPONSE: dict[str, Any] = {
    "boxes": [[1, 2, 3, 4]],
    "scores": [0.9],
    "classes": [0],
    "names": ["ball"],
    "masks": [],
    "image": {"width": 8, "height": 6},
}


def respond(_: Received) -> Response:
    return Response(body=json.dumps(RESPONSE).encode())


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(b"bytes")
    return path


@pytest.fixture
def runtime(connect: Connect, aws: Session, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """The runtime of the endpoint `now`, in the account of the environment."""
    _, runtime = connect("now", respond)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    keys = {name.upper(): value for name, value in KEYS.items()}
    for name, value in (NO_ACCOUNT | keys).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", runtime.url)
    return runtime


def test_command(runtime: Runtime, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--endpoint", "now", "--region", REGION, "--target-model", "a.tar.gz", "--json"]
    assert invoke(["predict", str(image), *arguments]) == 0
    assert json.loads(capsys.readouterr().out) == [{"file": str(image), "answer": RESPONSE}]
    [received] = runtime.received
    assert received.headers["x-amzn-sagemaker-target-model"] == "a.tar.gz"
    assert f"/{REGION}/sagemaker/" in received.headers["authorization"]


def predict(image: Path, **arguments: Any) -> list[Detections]:
    with d2serve.Client("now", **arguments) as client:
        return client.predict([image] * 3, masks="none")


def predict_async(image: Path, **arguments: Any) -> list[Detections]:
    async def awaited() -> list[Detections]:
        async with d2serve.AsyncClient("now", **arguments) as client:
            return await client.predict([image] * 3, masks="none")

    return asyncio.run(awaited())


@pytest.mark.parametrize("call", [predict, predict_async])
def test_clients(runtime: Runtime, image: Path, call: Any) -> None:
    results = call(image, region=REGION, target_model="a.tar.gz")
    assert [found.class_names for found in results] == [("ball",)] * 3
    for received in runtime.received:
        assert received.headers["x-amzn-sagemaker-target-model"] == "a.tar.gz"
        options = json.loads(received.headers["x-amzn-sagemaker-custom-attributes"])
        assert options == {"format": "default", "masks": "none"}
    assert len(runtime.received) == 3


@pytest.mark.parametrize("client", [d2serve.Client, d2serve.AsyncClient])
def test_endpoint_without_boto3(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(d2serve.CommandError, match=r"pip install 'd2serve\[aws\]'"):
        client("now")
