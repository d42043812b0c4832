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


@pytest.fixture(scope="session")
def documents(png: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """JSON files with the image, by their names."""
    text = base64.b64encode(png.read_bytes()).decode()
    contents = {
        "input.json": json.dumps({"image": text}),
        "indented.json": json.dumps({"parameters": {}, "image": text}, indent=2),
        "list.json": json.dumps([text]),
        "lines.jsonl": json.dumps(text) + "\n",
    }
    folder = tmp_path_factory.mktemp("documents")
    for name, content in contents.items():
        (folder / name).write_text(content)
    return {name: folder / name for name in contents}


@pytest.mark.parametrize("name", ["input.json", "indented.json", "list.json", "lines.jsonl"])
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("--upload-file", "{}"), id="T"),
        pytest.param(("--data", "@{}"), id="d"),
        pytest.param(("--data-binary", "@{}"), id="data-binary"),
        pytest.param(("--json", "@{}"), id="json"),
        pytest.param(("--form", "data=@{}"), id="F"),
        pytest.param(("--form", "data=@{};type=application/json"), id="F-with-a-type"),
        pytest.param(("--form", "data=@{};type=text/plain"), id="F-as-text"),
    ],
)
def test_json_files(
    curl: Curl,
    documents: dict[str, Path],
    expected: dict[str, Any],
    name: str,
    arguments: tuple[str, ...],
) -> None:
    filled = [argument.format(documents[name]) for argument in arguments]
    assert_same_prediction(curl("/predictions/{model}", *filled), expected)


@pytest.mark.parametrize(
    "value",
    ["@{};type=image/*", "@{};type=image/jpeg", "@{};filename=", "<{}", "<{};type=image/png",
     "@{};type=binary/octet-stream"],
)  # fmt: skip
def test_forms_of_unusual_parts(
    curl: Curl, png: Path, expected: dict[str, Any], value: str
) -> None:
    response = curl("/invocations", "--form", f"data={value.format(png)}")
    assert_same_prediction(response, expected)


@pytest.mark.parametrize(
    "content_type", ["binary/octet-stream", "image/*", "text/plain", "application/octet-stream"]
)
def test_content_types(curl: Curl, png: Path, expected: dict[str, Any], content_type: str) -> None:
    header = ("--header", f"Content-Type: {content_type}")
    response = curl("/invocations", *header, "--data-binary", f"@{png}")
    assert_same_prediction(response, expected)


@pytest.mark.parametrize(
    "attributes",
    ["c000b4f9-df62-4c85-a0bf-7c525f9104a4", "accept_eula=true", "accept_eula=true;masks=rle"],
)
def test_custom_attributes(
    curl: Curl, png: Path, expected: dict[str, Any], attributes: str
) -> None:
    header = ("--header", f"X-Amzn-SageMaker-Custom-Attributes: {attributes}")
    assert_same_prediction(curl("/invocations", *header, "-T", str(png)), expected)


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("--header", "Content-Encoding: gzip"), "unsupported_media_type", "gzip"),
        (("--header", "Content-Encoding: zstd"), "unsupported_media_type", "zstd"),
        (("--header", f"Cookie: a={'b' * 9_000}"), "headers_too_large", "headers"),
    ],
)
def test_errors_that_name_their_cause(
    curl: Curl, png: Path, arguments: tuple[str, ...], code: str, named: str
) -> None:
    error = curl("/invocations", *arguments, "-T", str(png))["error"]
    assert error["code"] == code
    assert named in error["message"]


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
