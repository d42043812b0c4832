"""The page's files and routes on the ASGI server, with a fake pipeline."""

import asyncio
import gzip
from pathlib import Path

import httpx
import pytest

from d2serve.servers.asgi.app import create_app
from d2serve.servers.asgi.frame import Access
from d2serve.servers.playground import files, routes
from d2serve.servers.playground.files import PAGE, SECURITY_HEADERS, page_files
from tests.servers.asgi.fakes import FakePipeline, send

PAGE_PATHS = ["/", "/playground/app.js", "/playground/config.json"]
MODELS = {"shapes": FakePipeline()}


@pytest.mark.parametrize("path", PAGE_PATHS)
def test_the_page_needs_no_token_and_predictions_do(path: str) -> None:
    app = create_app(MODELS, access=Access("a long token"))
    response = send(app, "GET", path)
    assert response.status_code == 200
    assert SECURITY_HEADERS.items() <= dict(response.headers).items()
    assert send(app, "POST", "/invocations", content=b"image").status_code == 401


def test_the_config_says_whether_predictions_need_a_token() -> None:
    for token in ("", "a long token"):
        config = send(create_app(MODELS, access=Access(token)), "GET", routes.CONFIG).json()
        assert config["models"] == ["shapes"]
        assert config["target"]["kind"] == "server"
        assert config["token"] is bool(token)


@pytest.mark.parametrize("path", PAGE_PATHS)
def test_head_has_the_headers_of_get(path: str) -> None:
    app = create_app(MODELS)
    head, get = send(app, "HEAD", path), send(app, "GET", path)
    assert head.status_code == 200
    for name in ("content-type", "content-length", "content-security-policy"):
        assert head.headers[name] == get.headers[name]


def test_a_file_is_sent_once_and_compressed() -> None:
    app = create_app(MODELS)
    response = send(app, "GET", "/", headers={"accept-encoding": "gzip"})
    assert response.headers["content-encoding"] == "gzip"
    assert response.headers["vary"] == "Accept-Encoding"
    assert response.content == page_files()[PAGE].body
    plain = send(app, "GET", "/", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == response.content
    again = send(app, "GET", "/", headers={"if-none-match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    changed = send(app, "GET", "/", headers={"if-none-match": '"another"'})
    assert changed.status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/playground/", "/playground/../files.py", "/playground/..%2ffiles.py", "/playground/%2fetc"],
)
def test_only_the_files_of_the_page_are_served(path: str) -> None:
    assert asyncio.run(_status_of_raw(path)) == 404


async def _status_of_raw(path: str) -> int:
    """The status of a path as an attacker sends it, not normalized by the client."""
    app = create_app(MODELS)
    url = httpx.URL("http://server").copy_with(raw_path=path.encode())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        return (await client.send(httpx.Request("GET", url))).status_code


@pytest.mark.parametrize("path", PAGE_PATHS)
def test_the_page_can_be_switched_off(path: str) -> None:
    assert send(create_app(MODELS, playground=False), "GET", path).status_code == 404


def test_an_installation_without_the_files_has_no_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(files, "ASSETS", tmp_path / "assets")
    monkeypatch.setattr(routes, "page_files", page_files.__wrapped__)
    app = create_app(MODELS)
    assert send(app, "GET", "/").status_code == 404
    assert send(app, "GET", "/ping").status_code == 200


def test_files_are_packed_without_loss() -> None:
    for file in page_files().values():
        assert gzip.decompress(file.packed) == file.body
