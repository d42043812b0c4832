"""Sections 4 and 5 of the contract: HTTP itself, through the real servers."""

import socket
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import httpx
import pytest

from d2serve.messages import MAX_HEAD_BYTES
from tests.serving.contract.rows import (
    CUSTOM_ATTRIBUTES,
    INFERENCE_ROUTES,
    Array,
    At,
    json_of,
    png_of,
)
from tests.serving.traffic import assert_same_prediction

Predict: TypeAlias = Callable[[Array], dict[str, Any]]
HEAD_BYTES = 100_000
PIECE_BYTES = 1000


def pieces(body: bytes) -> Iterator[bytes]:
    """A body in pieces, which httpx sends in chunks without a Content-Length."""
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]


def test_a_chunked_body(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict
) -> None:
    response = http.post(route_url, content=pieces(png_of(image).body))
    assert response.status_code == 200, response.text
    assert response.request.headers["transfer-encoding"] == "chunked"
    assert_same_prediction(response.json(), prediction_of(image))


def test_a_client_that_waits_for_100_continue(url: str, image: Array) -> None:
    """As curl does for bodies above 1 MB."""
    target, body = urlsplit(url), png_of(image).body
    lines = (
        f"POST {target.path} HTTP/1.1",
        f"Host: {target.netloc}",
        f"Content-Length: {len(body)}",
        "Expect: 100-continue",
        "Connection: close",
    )
    with socket.create_connection((target.hostname or "", target.port or 80), 60) as client:
        client.sendall("\r\n".join((*lines, "", "")).encode())
        response = client.makefile("rb")
        assert response.readline() == b"HTTP/1.1 100 Continue\r\n"
        client.sendall(body)
        assert b"HTTP/1.1 200 OK\r\n" in response.read()


@pytest.mark.parametrize("route", INFERENCE_ROUTES)
def test_a_deadline_that_has_passed_is_a_503(
    at: At, http: httpx.Client, image: Array, route: str
) -> None:
    response = png_of(image, **{"X-D2serve-Timeout-Ms": "0.001"}).post(http, at(route))
    assert response.status_code == 503, response.text
    assert int(response.headers["retry-after"]) >= 1
    if not route.startswith("/v2/"):
        assert response.json()["error"]["code"] == "overloaded"


def test_a_deadline_in_time(http: httpx.Client, route_url: str, image: Array) -> None:
    response = png_of(image, **{"X-D2serve-Timeout-Ms": "60000"}).post(http, route_url)
    assert response.status_code == 200, response.text


def head_of(url: str, *lines: str, size: int = 0) -> bytes:
    """The head of a ping; a cookie fills it up to a size."""
    target = urlsplit(url)
    path = target.path.replace("/invocations", "/ping")
    head = "\r\n".join((f"GET {path} HTTP/1.1", f"Host: {target.netloc}", *lines, "Cookie: "))
    return (head + "a" * (size - len(head) - 4) + "\r\n\r\n").encode()


def status_of(url: str, sent: bytes) -> int:
    """The status of the first response to raw bytes."""
    target = urlsplit(url)
    with socket.create_connection((target.hostname or "", target.port or 80), 60) as client:
        client.sendall(sent)
        return int(client.makefile("rb").readline().split()[1])


LARGE_HEADS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    # Headers and query.
    "a-cookie": ({"Cookie": "a" * 9_000}, {}),
    "several-cookies": ({"Cookie": "; ".join(f"a{index}={'b' * 90}" for index in range(95))}, {}),
    "a-token": ({"Authorization": f"Bearer {'a' * 9_000}"}, {}),
    "many-headers": ({f"X-Header-{index}": "a" * 40 for index in range(160)}, {}),
    "custom-attributes": ({CUSTOM_ATTRIBUTES: "a" * 9_000}, {}),
    "a-query": ({}, {"classes": "star," * 1_800}),
    "100-kB": ({"Cookie": "a" * HEAD_BYTES}, {}),
}


@pytest.mark.parametrize("name", LARGE_HEADS)
def test_a_large_head_is_a_431(http: httpx.Client, route_url: str, image: Array, name: str) -> None:
    headers, query = LARGE_HEADS[name]
    response = png_of(image, **headers).post(http, route_url, **query)
    assert response.status_code == 431, response.text
    error = response.json()["error"]
    assert error["code"] == "headers_too_large"
    assert str(MAX_HEAD_BYTES) in error["message"]
    assert "cookies" in error["hint"]


def test_the_largest_head_is_the_same_on_every_server(url: str) -> None:
    sizes = range(MAX_HEAD_BYTES - 1, MAX_HEAD_BYTES + 2)
    statuses = [status_of(url, head_of(url, size=size)) for size in sizes]
    assert statuses == [200, 200, 431]


@pytest.mark.parametrize("route", INFERENCE_ROUTES)
def test_a_head_below_the_limit_is_accepted_on_every_route(
    at: At, http: httpx.Client, image: Array, route: str
) -> None:
    """Also a form with a long query: the proxy adds fields of its own."""
    files = {"data": ("a.png", png_of(image).body, "image/png")}
    query = {"classes": "star," * 350 + "ring", "masks": "none"}
    url, boundary = at(route), "b" * 100
    request = http.build_request(
        "POST",
        url,
        params=query,
        files=files,
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}", "Origin": "http://a"},
    )
    size = len(request.url.raw_path) + sum(len(a) + len(b) + 4 for a, b in request.headers.raw)
    request.headers["Cookie"] = "a" * (MAX_HEAD_BYTES - size - 60)
    response = http.send(request)
    assert response.status_code == 200, response.text


def test_a_long_path_is_a_404(at: At, http: httpx.Client, image: Array) -> None:
    long = "a" * 5_000
    routes = ("/predictions/{}", "/v1/models/{}:predict", "/models/{}/invoke", "/{}")
    in_query = f"/invocations?model_name={long}"
    for url in (at(in_query), *(at(route.format(long)) for route in routes)):
        response = png_of(image).post(http, url)
        assert response.status_code == 404, response.text
        assert response.json()["error"]["code"] == "not_found"


def test_an_empty_body_is_a_400(http: httpx.Client, route_url: str) -> None:
    response = http.post(route_url, headers={"Content-Type": "image/png"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_request")


def test_responses_have_different_request_ids(
    http: httpx.Client, route_url: str, image: Array
) -> None:
    good, bad = png_of(image), json_of({"image": "?"})
    ids = {sent.post(http, route_url).headers["x-request-id"] for sent in (good, bad, good, bad)}
    assert len(ids) == 4
