"""The log line of each request."""

import json
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path

import httpx
import pytest

from d2serve.servers.torchserve.launcher.server import REQUESTS, Server
from tests.serving.served import request_line
from tests.serving.test_readme import blocks_of


def test_a_request_is_logged_as_json_without_its_content(
    server: Server, http: httpx.Client, url: str, png: Path
) -> None:
    body = {"image": b64encode(png.read_bytes()).decode(), "parameters": {"masks": "none"}}
    attributes = "max_detections=2"
    response = http.post(url, json=body, headers={"X-Amzn-SageMaker-Custom-Attributes": attributes})
    line = request_line(server, response.headers["x-request-id"])
    assert (line["status"], line["code"], line["model"]) == (200, "ok", "shapes")
    assert line["content_type"] == line["response_type"] == "application/json"
    assert line["bytes_in"] == len(response.request.content)
    assert line["bytes_out"] == len(response.content)
    size = response.json()["image"]
    assert line["sizes"] == [f"{size['width']}x{size['height']}"]
    assert line["options"] == {"masks": "none", "max_detections": 2}
    assert line["forward_ms"] > 0
    assert json.dumps(body["image"])[1:50] not in json.dumps(line)


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_the_documented_commands_read_the_log(
    server: Server, http: httpx.Client, url: str, png: Path, repo_root: Path, tmp_path: Path
) -> None:
    for body in (png.read_bytes(), b"hello"):
        response = http.post(url, content=body)
        request_line(server, response.headers["x-request-id"])
    slowest, refused, mixed = commands(repo_root)
    folder = tmp_path / "logs" / "serve-8080"
    folder.mkdir(parents=True)
    shutil.copy(server.logs.folder / REQUESTS, folder)
    assert all(json.loads(line)["total_ms"] > 0 for line in run(slowest, tmp_path))
    assert any("unsupported_media_type" in line for line in run(refused, tmp_path))
    # As SageMaker's log configuration writes them.
    texts = (folder / REQUESTS).read_text().splitlines()
    log = "".join(f"2026-01-31T09:26:53,589 [INFO ] MODEL_LOG - {text}\n" for text in texts)
    (tmp_path / "model_log.log").write_text(f"2026-01-31 a stack trace\n{log}")
    assert len(run(mixed, tmp_path)) == len(texts)


def test_the_documented_line_has_the_keys_of_a_real_line(
    server: Server, http: httpx.Client, url: str, png: Path, repo_root: Path
) -> None:
    [example] = blocks_of(repo_root / "docs/operating.md", "json")
    response = http.post(url, content=png.read_bytes())
    line = request_line(server, response.headers["x-request-id"])
    assert list(json.loads(example)) == list(line)


def commands(repo_root: Path) -> list[str]:
    blocks = blocks_of(repo_root / "docs/operating.md", "sh")
    return [line for block in blocks for line in block.splitlines()]


def run(command: str, folder: Path) -> list[str]:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout, command
    return done.stdout.splitlines()
