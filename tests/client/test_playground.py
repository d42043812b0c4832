"""`d2serve playground` as a process, in front of fake servers."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import httpx
import pytest

from d2serve.cli.main import invoke
from d2serve.errors import CommandError
from tests.client.conftest import KEYS, REGION
from tests.client.runtime import Received, Response, Runtime
from tests.environment import clean_environment

SECRET = "a-secret-token"
OPTIONS = {"masks": "rle", "format": "default"}


def succeed(_: Received) -> Response:
    return Response(body=b'{"scores": []}')


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with Runtime(succeed) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@contextmanager
def running_playground(*options: str, **variables: str) -> Iterator[httpx.Client]:
    """Run the command; yields a client of its page."""
    command = [sys.executable, "-m", "d2serve.cli.main", "playground", "--port", "0", *options]
    environment = {**clean_environment(), "PYTHONUNBUFFERED": "1", **variables}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        [url] = re.findall(r"is at (http\S+)", process.stdout.readline())
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_in_front_of_a_server_with_a_token(runtime: Runtime, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    options = ("--url", f"{runtime.url}/predictions/shapes", "--token-file", str(file))
    with running_playground(*options) as client:
        config = client.get("playground/config.json")
        response = client.post("invocations", content=b"image", params=OPTIONS)
        runtime.shutdown()
        runtime.server_close()
        failed = client.post("invocations", content=b"image")
    assert config.json()["target"]["url"] == f"{runtime.url}/predictions/shapes"
    assert (response.status_code, response.json()) == (200, {"scores": []})
    assert runtime.received[0].headers["authorization"] == f"Bearer {SECRET}"
    assert (failed.status_code, failed.json()["error"]["code"]) == (502, "unreachable")
    for each in (config, response, failed):
        assert SECRET not in f"{each.headers}{each.text}"


@pytest.mark.usefixtures("aws")
def test_in_front_of_an_endpoint(runtime: Runtime, moto_url: str) -> None:
    runtime.container = lambda request: (
        succeed(request)
        if request.body
        else Response(400, b'{"error": {"code": "bad_request", "message": "empty body"}}')
    )
    variables = {name.upper(): value for name, value in KEYS.items()}
    urls = {"AWS_ENDPOINT_URL": moto_url, "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": runtime.url}
    options = ("--endpoint", "now", "--region", REGION)
    with running_playground(*options, **variables, **urls) as client:
        target = client.get("playground/config.json").json()["target"]
        response = client.post("invocations", content=b"image", params=OPTIONS)
        failed = client.post("invocations", content=b"")
    assert (target["kind"], target["endpoint"], target["region"]) == ("sagemaker", "now", REGION)
    assert (response.status_code, response.json()) == (200, {"scores": []})
    assert '"masks": "rle"' in runtime.received[0].headers["x-amzn-sagemaker-custom-attributes"]
    assert (failed.status_code, failed.json()["error"]["message"]) == (400, "empty body")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--url", "http://127.0.0.1", "--endpoint", "now"), "either --url or --endpoint"),
        (("--endpoint", "now", "--ca", "ca.pem"), "belong to --url"),
        (("--url", "http://user:password@127.0.0.1"), "user or password"),
    ],
)
def test_options_that_contradict_each_other(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["playground", *options]) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_an_empty_token_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.touch()
    with pytest.raises(CommandError, match="is empty"):
        invoke(["playground", "--url", "http://127.0.0.1:1", "--token-file", str(file)])
