"""Section 1 of the contract: every route of the real server."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.serving.contract.rows import Array, At, Sent, base64_of, json_of, png_of
from tests.serving.served import Served
from tests.serving.traffic import assert_same_answer

ROUTES = [
    "/invocations",
    "/models/{model}/invoke",
    "/predictions/{model}",
    "/predictions/{model}/1.0",
    "/v1/models/{model}:predict",
    "/v2/models/{model}/infer",
]


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_takes_a_picture(
    at: At,
    http: httpx.Client,
    picture: Array,
    answer_to: Callable[[Array], dict[str, Any]],
    route: str,
) -> None:
    encoded = base64_of(png_of(picture).body)
    for sent in (png_of(picture), Sent(png_of(picture).body), json_of({"image": encoded})):
        response = sent.post(http, at(route))
        assert response.status_code == 200, response.text
        assert_same_answer(response.json(), answer_to(picture))


def test_a_model_can_be_named_in_the_query(
    served: Served, http: httpx.Client, url: str, picture: Array
) -> None:
    assert png_of(picture).post(http, url, model_name=served.model_name).status_code == 200


def test_ping(at: At, http: httpx.Client) -> None:
    assert http.get(at("/ping")).json() == {"status": "Healthy"}
