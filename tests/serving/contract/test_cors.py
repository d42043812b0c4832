"""Web pages of other origins, through real servers whose operator permits some and has a token."""

import httpx
import pytest

from tests.serving.contract.guarded import LOCAL, ORIGIN, Guarded
from tests.serving.contract.rows import INFERENCE_ROUTES, Array, png_of

OTHERS = ("https://example.com", "http://example.org", "https://example.org:8443", "null")
ALLOW = "access-control-allow-origin"


def preflight(
    http: httpx.Client, url: str, origin: str = ORIGIN, method: str = "POST"
) -> httpx.Response:
    """A browser's request before that of a script, which has a token and JSON."""
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return http.options(url, headers=headers)


@pytest.mark.parametrize("origin", [ORIGIN, LOCAL])
@pytest.mark.parametrize("route", [*INFERENCE_ROUTES, "/ping", "/v2/models/{model}"])
def test_a_preflight_request_needs_no_token(
    guarded: Guarded, http: httpx.Client, route: str, origin: str
) -> None:
    response = preflight(http, guarded.at(route), origin)
    assert response.is_success, response.text
    assert response.headers.get(ALLOW) == origin
    assert response.headers["access-control-allow-headers"] == "authorization,content-type"
    assert {"GET", "POST", "PUT"} <= set(
        response.headers["access-control-allow-methods"].split(", ")
    )


@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
def test_the_methods_of_scripts(guarded: Guarded, http: httpx.Client, method: str) -> None:
    assert preflight(http, guarded.at("/invocations"), method=method).headers.get(ALLOW) == ORIGIN


@pytest.mark.parametrize("origin", OTHERS)
def test_another_origin_is_not_permitted(
    guarded: Guarded, http: httpx.Client, image: Array, origin: str
) -> None:
    refused = preflight(http, guarded.at("/invocations"), origin)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["code"] == "bad_request"
    assert "--cors-origin" in refused.json()["error"]["hint"]
    headers = {"Authorization": f"Bearer {guarded.token}", "Origin": origin}
    response = png_of(image, **headers).post(http, guarded.at("/invocations"))
    assert response.status_code == 200, response.text
    for each in (refused, response):
        assert ALLOW not in each.headers
        assert each.headers.get("vary") == "Origin"


def test_a_script_can_read_the_response(guarded: Guarded, http: httpx.Client, image: Array) -> None:
    """`fetch` with a string body declares text/plain, or JSON as here."""
    headers = {"Authorization": f"Bearer {guarded.token}", "Origin": ORIGIN}
    response = png_of(image, **headers).post(http, guarded.at("/invocations"))
    assert response.status_code == 200, response.text
    assert response.headers.get(ALLOW) == ORIGIN
    exposed = response.headers["access-control-expose-headers"].lower()
    assert {"server-timing", "x-request-id", "retry-after"} <= set(exposed.split(", "))


@pytest.mark.parametrize(
    ("method", "route", "body", "token", "status"),
    [
        pytest.param("POST", "/invocations", b"?", False, 401, id="without-the-token"),
        pytest.param("POST", "/invocations", b"?", True, 415, id="of-the-model"),
        pytest.param("POST", "/no/such/route", b"?", True, 404, id="of-the-server"),
        pytest.param("DELETE", "/invocations", b"", True, 405, id="method"),
        pytest.param("GET", "/v2/models/{model}", b"", True, 200, id="a-document"),
    ],
)
def test_a_script_can_read_errors_and_documents(
    guarded: Guarded,
    http: httpx.Client,
    method: str,
    route: str,
    body: bytes,
    token: bool,
    status: int,
) -> None:
    authorization = {"Authorization": f"Bearer {guarded.token}"} if token else {}
    headers = {"Origin": ORIGIN, **authorization}
    response = http.request(method, guarded.at(route), content=body, headers=headers)
    assert response.status_code == status, response.text
    assert response.headers.get(ALLOW) == ORIGIN


def test_other_clients_are_not_affected(guarded: Guarded, http: httpx.Client, image: Array) -> None:
    headers = {"Authorization": f"Bearer {guarded.token}"}
    response = png_of(image, **headers).post(http, guarded.at("/invocations"))
    assert response.status_code == 200, response.text
    assert ALLOW not in response.headers
