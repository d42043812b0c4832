"""curl, as the documentation of the protocols uses it."""

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from d2serve.messages import BINARY_HEADER
from tests.serving.clients.conversation import assert_same_tensors
from tests.serving.served import Served
from tests.serving.traffic import assert_same_prediction

Curl: TypeAlias = Callable[..., dict[str, Any]]
CURL = ("curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "60")
pytestmark = pytest.mark.parametrize(
    "server_name", ["asgi", "torchserve"], indirect=True, scope="session"
)


@pytest.fixture(scope="session")
def curl(served: Served) -> Curl:
    """Sends a request to a path; returns the response's JSON."""

    def run(path: str, *arguments: str) -> dict[str, Any]:
        url = served.url + path.format(model=served.model_name)
        done = subprocess.run(
            [*CURL, *arguments, url],
            capture_output=True,
            check=True,
        )
        response: dict[str, Any] = json.loads(done.stdout)
        return response

    return run


@pytest.fixture(scope="session")
def png(image_files: tuple[Path, Path]) -> Path:
    return image_files[0]


def tensors_of(response: dict[str, Any]) -> dict[str, Any]:
    """Tensors of a JSON response by name; boxes as rows."""
    tensors = {output["name"]: output["data"] for output in response["outputs"]}
    boxes = tensors["boxes"]
    return {**tensors, "boxes": [boxes[at : at + 4] for at in range(0, len(boxes), 4)]}


def test_health_and_metadata(curl: Curl) -> None:
    assert curl("/v2/health/live") == {"live": True}
    assert curl("/v2/health/ready") == {"ready": True}
    assert curl("/v2")["name"] == "d2serve"
    assert curl("/v2/models/{model}")["name"] == "shapes"
    assert curl("/v2/models/{model}/ready")["ready"] is True
    assert curl("/v1/models/{model}")["ready"] is True


def test_put(curl: Curl, png: Path, expected: dict[str, Any]) -> None:
    response = curl("/predictions/{model}", "--upload-file", str(png))
    assert_same_prediction(response, expected)


@pytest.mark.parametrize("path", ["/invocations", "/predictions/{model}"])
def test_form(curl: Curl, png: Path, expected: dict[str, Any], path: str) -> None:
    assert_same_prediction(curl(path, "--form", f"data=@{png}"), expected)


@pytest.mark.parametrize("path", ["/invocations", "/predictions/{model}"])
def test_data_binary_without_a_content_type(
    curl: Curl, png: Path, expected: dict[str, Any], path: str
) -> None:
    assert_same_prediction(curl(path, "--data-binary", f"@{png}"), expected)


@pytest.mark.parametrize("header", [(), ("--header", "Content-Type: application/json")])
def test_v2_json(
    curl: Curl, png: Path, expected: dict[str, Any], tmp_path: Path, header: tuple[str, ...]
) -> None:
    text = base64.b64encode(png.read_bytes()).decode()
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]}
    body = tmp_path / "request.json"
    body.write_text(json.dumps({"inputs": [tensor]}))
    response = curl("/v2/models/{model}/infer", *header, "--data-binary", f"@{body}")
    assert_same_tensors(tensors_of(response), expected)


@pytest.mark.parametrize("header", [(), ("--header", "Content-Type: application/octet-stream")])
def test_v2_with_binary_tensors(
    curl: Curl, png: Path, expected: dict[str, Any], tmp_path: Path, header: tuple[str, ...]
) -> None:
    element = len(png.read_bytes()).to_bytes(4, "little") + png.read_bytes()
    tensor = {
        "name": "image",
        "shape": [1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(element)},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    body = tmp_path / "request.bin"
    body.write_bytes(head + element)
    length = ("--header", f"{BINARY_HEADER}: {len(head)}")
    path = "/v2/models/{model}/infer"
    response = curl(path, *header, *length, "--data-binary", f"@{body}")
    assert_same_tensors(tensors_of(response), expected)


def test_v2_error(curl: Curl) -> None:
    response = curl("/v2/models/{model}/infer", "--data-binary", '{"inputs": []}')
    assert isinstance(response["error"], str)
