from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from d2serve.client.client import Client
from d2serve.client.folder import send_pictures
from d2serve.client.http import HttpTransport
from d2serve.client.transport import UnreachableError


def answer(request: httpx.Request) -> httpx.Response:
    if request.content == b"broken":
        error = {"code": "bad_request", "message": "truncated", "hint": "send all of it"}
        return httpx.Response(400, json={"error": error})
    if request.headers["accept"].startswith("image/"):
        return httpx.Response(200, content=request.headers["accept"].encode())
    return httpx.Response(200, json={"names": [request.content.decode()]})


def client_of(server: Callable[[httpx.Request], httpx.Response]) -> Client:
    transport = HttpTransport("http://server.test/", transport=httpx.MockTransport(server))
    return Client(transport, sleep=lambda _: None)


@pytest.fixture
def client() -> Client:
    return client_of(answer)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    contents = {"a.jpg": b"one", "b.png": b"broken", "c.png": b"three"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in contents]


def test_one_refused_picture_does_not_stop_the_rest(
    client: Client, pictures: list[Path], tmp_path: Path
) -> None:
    first, refused, last = send_pictures(client, pictures, tmp_path)
    assert [first.file, refused.file, last.file] == pictures
    assert first.answer == {"names": ["one"]}
    assert refused.error == {
        "code": "bad_request",
        "message": "truncated",
        "hint": "send all of it",
    }
    assert last.answer == {"names": ["three"]}


def test_overlays_are_written_for_the_answered(
    client: Client, pictures: list[Path], tmp_path: Path
) -> None:
    overlays = tmp_path / "out"
    send_pictures(client, pictures, tmp_path, overlays)
    written = {path.name: path.read_bytes() for path in overlays.iterdir()}
    assert written == {"a.jpg": b"image/jpeg", "c.png": b"image/png"}


def test_without_a_server_there_is_one_error(pictures: list[Path], tmp_path: Path) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(UnreachableError):
        send_pictures(client_of(refuse), pictures, tmp_path)
