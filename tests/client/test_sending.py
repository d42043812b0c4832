from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from d2serve.client.folder import send_images
from d2serve.client.http import HttpTransport
from d2serve.client.sender import Sender
from d2serve.errors import UnreachableError


def respond(request: httpx.Request) -> httpx.Response:
    if request.content == b"broken":
        error = {"code": "bad_request", "message": "truncated", "hint": "send all of it"}
        return httpx.Response(400, json={"error": error})
    if request.headers["accept"].startswith("image/"):
        return httpx.Response(200, content=request.headers["accept"].encode())
    return httpx.Response(200, json={"names": [request.content.decode()]})


def client_of(server: Callable[[httpx.Request], httpx.Response]) -> Sender:
    transport = HttpTransport("http://server.test/", transport=httpx.MockTransport(server))
    return Sender(transport, sleep=lambda _: None)


@pytest.fixture
def client() -> Sender:
    return client_of(respond)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    contents = {"a.jpg": b"one", "b.png": b"broken", "c.png": b"three"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in contents]


def test_failed_image_does_not_stop_the_rest(
    client: Sender, images: list[Path], tmp_path: Path
) -> None:
    first, failed, last = send_images(client, [tmp_path])
    assert [first.file, failed.file, last.file] == images
    assert first.response == {"names": ["one"]}
    assert failed.error == {
        "code": "bad_request",
        "message": "truncated",
        "hint": "send all of it",
    }
    assert last.response == {"names": ["three"]}


def test_overlays_are_written_for_successful_images(
    client: Sender, images: list[Path], tmp_path: Path
) -> None:
    overlays = tmp_path / "out"
    send_images(client, [tmp_path], overlays)
    written = {path.name: path.read_bytes() for path in overlays.iterdir()}
    assert written == {"a.jpg": b"image/jpeg", "c.png": b"image/png"}


def test_missing_server_is_one_error(images: list[Path], tmp_path: Path) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("raised")

    with pytest.raises(UnreachableError):
        send_images(client_of(refuse), images)


def test_page_of_another_server_is_the_error_of_its_image(images: list[Path]) -> None:
    client = client_of(lambda _: httpx.Response(200, text="<html>"))
    results = send_images(client, images)
    assert [result.error and result.error["code"] for result in results] == ["no_prediction"] * 3
