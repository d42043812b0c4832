"""The middleware for requests that AWS's adapter forwards."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from d2serve.errors import SettingsError
from d2serve.servers.sagemaker.adapted import Adapted
from d2serve.servers.sagemaker.application import count_gpus, replicas
from d2serve.servers.sagemaker.watchdog import hold_lock

JSON = (b"content-type", b"application/json")
OTHER = (b"accept", b"*/*")


def received_by_application(
    tmp_path: Path, *chunks: bytes, method: str = "POST", path: str = "/", headers: Any = (JSON,)
) -> tuple[str, list[tuple[bytes, bytes]], bytes]:
    """Send a request through the middleware; return path, headers and body that pass it."""
    messages = [
        {"type": "http.request", "body": chunk, "more_body": chunk is not chunks[-1]}
        for chunk in chunks
    ]
    seen: list[Any] = []

    async def application(scope: Any, receive: Any, _: Any) -> None:
        seen.extend((scope["path"], list(scope["headers"])))
        body = b""
        while (message := await receive())["more_body"]:
            body += message["body"]
        seen.append(body + message["body"])

    async def receive() -> Any:
        return messages.pop(0)

    scope = {"type": "http", "method": method, "path": path, "headers": [*headers, OTHER]}
    with hold_lock(tmp_path / "lock") as lock:
        asyncio.run(Adapted(application, lock)(scope, receive, None))  # type: ignore[arg-type]
    path, passed, body = seen
    return path, passed, body


def test_the_root_is_invocations(tmp_path: Path) -> None:
    path, headers, body = received_by_application(tmp_path, b"{}", b"more")
    assert (path, headers, body) == ("/invocations", [JSON, OTHER], b"{}more")


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", "/v2/models/a/infer")])
def test_other_requests_stay(tmp_path: Path, method: str, path: str) -> None:
    seen = received_by_application(tmp_path, b"\xff\xd8", method=method, path=path)
    assert seen == (path, [JSON, OTHER], b"\xff\xd8")


@pytest.mark.parametrize(
    "start", [b"\xff\xd8\xff", b"\x89PNG", b"\x93NUMPY", b"GIF89a", b"BM", b"II*\0", b"RIFF"]
)
def test_a_file_that_is_declared_as_json_has_no_type(tmp_path: Path, start: bytes) -> None:
    _, headers, body = received_by_application(tmp_path, start, b"more")
    assert (headers, body) == ([OTHER], start + b"more")


@pytest.mark.parametrize(
    ("body", "declared"),
    [(b"", JSON), (b"text", JSON), (b"\xff\xd8", (b"content-type", b"application/x-npy"))],
)
def test_other_types_stay(tmp_path: Path, body: bytes, declared: tuple[bytes, bytes]) -> None:
    _, headers, _ = received_by_application(tmp_path, body, headers=(declared,))
    assert headers == [declared, OTHER]


@pytest.mark.parametrize("received", [0, 1, 2])
def test_a_response_waits_for_the_end_of_the_request(tmp_path: Path, received: int) -> None:
    """The adapter reports 500 for a connection that is closed while it sends."""
    chunks = [b"{", b"}"]
    sent: list[Any] = []

    async def application(_: Any, receive: Any, send: Any) -> None:
        for _ in range(received):
            await receive()
        headers = [(b"Connection", b"close"), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": b"no"})

    async def receive() -> Any:
        body = chunks.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(chunks)}

    async def send(message: Any) -> None:
        assert not chunks
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [JSON]}
    with hold_lock(tmp_path / "lock") as lock:
        asyncio.run(Adapted(application, lock)(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["headers"] == [(b"content-type", b"text/plain")]


@pytest.mark.parametrize(("gpus", "expected"), [(0, 2), (1, 1), (4, 4)])
def test_replicas(monkeypatch: pytest.MonkeyPatch, gpus: int, expected: int) -> None:
    monkeypatch.delenv("D2SERVE_REPLICAS", raising=False)
    assert replicas(gpus) == expected
    monkeypatch.setenv("D2SERVE_REPLICAS", "3")
    assert replicas(gpus) == 3


@pytest.mark.parametrize("value", ["0", "two", ""])
def test_an_invalid_number_of_replicas(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("D2SERVE_REPLICAS", value)
    with pytest.raises(SettingsError, match=rf"D2SERVE_REPLICAS is '{value}', expected an integer"):
        replicas(0)


@pytest.mark.parametrize(
    ("script", "expected"), [("echo GPU 0; echo GPU 1", 2), ("exit 9", 0), (None, 0)]
)
def test_gpus_are_counted_as_the_entrypoint_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, expected: int
) -> None:
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert count_gpus() == expected
