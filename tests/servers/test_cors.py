"""Cross-origin resource sharing without a server."""

import pytest

from d2serve.errors import CommandError, RequestError
from d2serve.servers.cors import Cors

PREFLIGHT = {"origin": "https://example.org", "access-control-request-method": "POST"}


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://example.org", "https://example.org"),
        ("HTTPS://Example.ORG", "https://example.org"),
        ("https://example.org:443", "https://example.org"),
        ("http://example.org:80", "http://example.org"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
        ("null", "null"),
        ("*", "*"),
    ],
)
def test_origins_are_normalized(given: str, origin: str) -> None:
    assert Cors.of([given]).origins == (origin,)


@pytest.mark.parametrize(
    "given",
    ["", "example.org", "https://", "https://example.org/", "https://example.org/page", "//a",
     "https://user@example.org", "https://*.example.org", "https://a, https://b", "https://a:port"],
)  # fmt: skip
def test_other_text_is_rejected_with_examples(given: str) -> None:
    with pytest.raises(CommandError, match=r"is not an origin; use .*https://example\.org"):
        Cors.of([given])


def test_all_origins() -> None:
    cors = Cors.of(["*"])
    assert cors.headers("https://example.org")["access-control-allow-origin"] == "*"
    assert "vary" not in cors.headers("https://example.org")
    assert cors.headers(None) == {}
    assert cors.preflight("OPTIONS", PREFLIGHT)


def test_without_origins_there_is_nothing() -> None:
    assert Cors().headers("https://example.org") == {}
    assert Cors().preflight("OPTIONS", PREFLIGHT) is None


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", PREFLIGHT),
        ("OPTIONS", {}),
        ("OPTIONS", {"origin": "https://example.org"}),
        ("OPTIONS", {"access-control-request-method": "POST"}),
    ],
)
def test_other_requests_are_no_preflights(method: str, headers: dict[str, str]) -> None:
    assert Cors.of(["*"]).preflight(method, headers) is None


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "TRACE", "post"])
def test_a_preflight_for_another_method_is_a_400(method: str) -> None:
    with pytest.raises(RequestError) as failure:
        Cors.of(["*"]).preflight("OPTIONS", {**PREFLIGHT, "access-control-request-method": method})
    assert failure.value.status == 400
    assert "POST" in failure.value.hint


def test_only_names_of_headers_are_repeated() -> None:
    names = {"access-control-request-headers": "a\r\nset-cookie: b"}
    permission = Cors.of(["*"]).preflight("OPTIONS", {**PREFLIGHT, **names})
    assert permission
    assert "access-control-allow-headers" not in permission
