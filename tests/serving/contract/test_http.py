"""Sections 4 and 5 of the contract: HTTP itself, through the real servers."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import httpx
import pytest

from tests.serving.contract.rows import INFERENCE_ROUTES, Array, At, json_of, png_of
from tests.serving.traffic import assert_same_prediction

Predict: TypeAlias = Callable[[Array], dict[str, Any]]
HEAD_BYTES = 100_000
PIECE_BYTES = 1000
# Beyond the servers' timeout of 30 s.
UNFINISHED_S = 60


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


def test_a_large_head_is_a_431(http: httpx.Client, route_url: str, image: Array) -> None:
    response = png_of(image, Cookie="a" * HEAD_BYTES).post(http, route_url)
    assert (response.status_code, response.json()["error"]["code"]) == (431, "headers_too_large")


def test_requests_that_do_not_arrive_in_time_are_408s(url: str) -> None:
    """An incomplete head and an incomplete body, at the same time."""
    target = urlsplit(url)
    head = f"POST {target.path} HTTP/1.1\r\nHost: {target.netloc}\r\n"
    with ExitStack() as stack:
        responses = []
        for sent in (head, f"{head}Content-Length: 9\r\n\r\nabc"):
            address = (target.hostname or "", target.port or 80)
            client = stack.enter_context(socket.create_connection(address, UNFINISHED_S))
            client.sendall(sent.encode())
            responses.append(client.makefile("rb"))
        for response in responses:
            assert response.readline().startswith(b"HTTP/1.1 408 ")
            received = response.read()
            assert b'"code": "request_timeout"' in received
            assert b"connection: close" in received.lower()


def test_an_empty_body_is_a_400(http: httpx.Client, route_url: str) -> None:
    response = http.post(route_url, headers={"Content-Type": "image/png"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_request")


def test_responses_have_different_request_ids(
    http: httpx.Client, route_url: str, image: Array
) -> None:
    good, bad = png_of(image), json_of({"image": "?"})
    ids = {sent.post(http, route_url).headers["x-request-id"] for sent in (good, bad, good, bad)}
    assert len(ids) == 4
