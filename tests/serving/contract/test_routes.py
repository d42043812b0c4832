"""Section 1 of the contract: every route of the real server."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.serving.contract.rows import Array, At, Sent, base64_of, json_of, png_of
from tests.serving.served import Served
from tests.serving.traffic import assert_same_prediction

ROUTES = [
    "/invocations",
    "/models/{model}/invoke",
    "/predictions/{model}",
    "/predictions/{model}/1.0",
    "/v1/models/{model}:predict",
    "/v2/models/{model}/infer",
]


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_accepts_an_image(
    at: At,
    http: httpx.Client,
    image: Array,
    prediction_of: Callable[[Array], dict[str, Any]],
    route: str,
) -> None:
    encoded = base64_of(png_of(image).body)
    for sent in (png_of(image), Sent(png_of(image).body), json_of({"image": encoded})):
        response = sent.post(http, at(route))
        assert response.status_code == 200, response.text
        assert_same_prediction(response.json(), prediction_of(image))


def test_a_model_can_be_named_in_the_query(
    served: Served, http: httpx.Client, url: str, image: Array
) -> None:
    assert png_of(image).post(http, url, model_name=served.model_name).status_code == 200


def test_ping(at: At, http: httpx.Client) -> None:
    assert http.get(at("/ping")).json() == {"status": "Healthy"}
