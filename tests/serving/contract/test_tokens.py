"""Section 5 of the contract: servers that require a token."""

import httpx
import pytest

from tests.serving.contract.guarded import Guarded
from tests.serving.contract.rows import INFERENCE_ROUTES, Array, png_of


@pytest.mark.parametrize(
    ("route", "authorization"),
    [
        *((route, None) for route in INFERENCE_ROUTES),
        *(("/invocations", text) for text in ("Bearer AAAAAAAA", "Basic AAAAAAAA", "Bearer")),
    ],
)
def test_a_request_without_the_token_is_a_401(
    guarded: Guarded, http: httpx.Client, image: Array, route: str, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = png_of(image, **headers).post(http, guarded.at(route))
    assert response.status_code == 401, response.text
    assert response.headers["www-authenticate"].startswith("Bearer")
    if not route.startswith("/v2/"):
        assert response.json()["error"]["code"] == "unauthorized"
    assert guarded.token not in response.text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_a_request_with_the_token_is_processed(
    guarded: Guarded, http: httpx.Client, image: Array, scheme: str
) -> None:
    headers = {"Authorization": f"{scheme} {guarded.token}"}
    response = png_of(image, **headers).post(http, guarded.at("/invocations"))
    assert response.status_code == 200, response.text


def test_a_health_check_with_the_token_succeeds(guarded: Guarded, http: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {guarded.token}"}
    assert http.get(guarded.at("/ping"), headers=headers).json() == {"status": "Healthy"}


def test_a_health_check_needs_no_token(guarded: Guarded, http: httpx.Client) -> None:
    response = http.get(guarded.at("/ping"))
    assert response.status_code == 200, response.text
