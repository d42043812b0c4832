"""Section 1 of the contract: every route of the real servers."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from d2serve.messages import VERSION
from tests.serving.contract.rows import (
    INFERENCE_ROUTES,
    Array,
    At,
    Sent,
    base64_of,
    json_of,
    png_of,
)
from tests.serving.served import Served
from tests.serving.traffic import assert_same_prediction

UNKNOWN_MODEL = "no-such-model"


@pytest.mark.parametrize("route", INFERENCE_ROUTES)
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


def test_put_as_curl_sends_files(
    at: At, http: httpx.Client, image: Array, prediction_of: Callable[[Array], dict[str, Any]]
) -> None:
    """`curl -T` sends PUT."""
    response = http.put(at("/predictions/{model}"), content=png_of(image).body)
    assert response.status_code == 200, response.text
    assert_same_prediction(response.json(), prediction_of(image))


def test_a_model_can_be_named_in_the_query(
    served: Served, http: httpx.Client, url: str, image: Array
) -> None:
    assert png_of(image).post(http, url, model_name=served.model_name).status_code == 200


def test_ping(at: At, http: httpx.Client) -> None:
    response = http.get(at("/ping"))
    assert (response.status_code, response.json()) == (200, {"status": "Healthy"})
    assert http.head(at("/ping")).status_code == 200


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/{model}/ready", {"name": "{model}", "ready": True}),
        ("/v2/models/{model}/versions/1/ready", {"name": "{model}", "ready": True}),
        ("/v1/models/{model}", {"name": "{model}", "ready": True}),
    ],
)
def test_readiness_of_the_protocols(
    served: Served, at: At, http: httpx.Client, route: str, expected: dict[str, Any]
) -> None:
    response = http.get(at(route))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    named = {
        key: served.model_name if value == "{model}" else value for key, value in expected.items()
    }
    assert response.json() == named


def test_metadata_of_the_server(at: At, http: httpx.Client) -> None:
    response = http.get(at("/v2"))
    assert response.status_code == 200, response.text
    content = response.json()
    assert (content["name"], content["version"]) == ("d2serve", VERSION)
    assert "binary_tensor_data" in content["extensions"]


@pytest.mark.parametrize("route", ["/v2/models/{model}", "/v2/models/{model}/versions/1"])
def test_metadata_of_the_model(served: Served, at: At, http: httpx.Client, route: str) -> None:
    response = http.get(at(route))
    assert response.status_code == 200, response.text
    content = response.json()
    assert content["name"] == served.model_name
    assert content["versions"] == ["1"]
    assert content["platform"]
    [tensor] = content["inputs"]
    assert (tensor["datatype"], tensor["shape"]) == ("BYTES", [-1])
    outputs = {each["name"]: (each["datatype"], each["shape"]) for each in content["outputs"]}
    assert outputs["boxes"] == ("FP32", [-1, 4])
    assert {"scores", "classes", "masks"} <= set(outputs)


def test_metrics_and_openapi_have_routes(at: At, http: httpx.Client) -> None:
    metrics = http.get(at("/metrics"))
    assert metrics.status_code == 200
    assert "# TYPE d2serve_requests_total counter" in metrics.text
    document = http.get(at("/openapi.json"))
    assert document.status_code == 200
    assert "/invocations" in document.json()["paths"]


@pytest.mark.parametrize("route", ["/no/such/route", "/invocation", "/invocations/more"])
def test_an_unknown_route_is_a_404(at: At, http: httpx.Client, route: str) -> None:
    for response in (http.post(at(route), content=b"a"), http.get(at(route))):
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "route",
    [
        "/models/{model}/invoke",
        "/predictions/{model}",
        "/v1/models/{model}:predict",
    ],
)
def test_an_unknown_model_is_a_404(
    served: Served, http: httpx.Client, image: Array, route: str
) -> None:
    response = png_of(image).post(http, served.url + route.format(model=UNKNOWN_MODEL))
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "route"),
    [
        ("POST", "/v2/models/{model}/infer"),
        ("POST", "/v2/models/{model}/versions/1/infer"),
        ("GET", "/v2/models/{model}"),
        ("GET", "/v2/models/{model}/ready"),
    ],
)
def test_an_unknown_model_is_an_error_of_the_open_inference_protocol(
    served: Served, http: httpx.Client, image: Array, method: str, route: str
) -> None:
    content = png_of(image).body if method == "POST" else None
    url = served.url + route.format(model=UNKNOWN_MODEL)
    response = http.request(method, url, content=content)
    assert response.status_code == 404
    assert list(response.json()) == ["error"]
    assert isinstance(response.json()["error"], str)


@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH"])
@pytest.mark.parametrize("route", ["/invocations", "/models/{model}/invoke"])
def test_another_method_is_a_405_that_names_the_accepted_one(
    at: At, http: httpx.Client, route: str, method: str
) -> None:
    response = http.request(method, at(route))
    assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed")
    assert "POST" in response.headers["allow"]
    assert method not in response.headers["allow"]


def test_a_ping_cannot_be_deleted(at: At, http: httpx.Client) -> None:
    response = http.delete(at("/ping"))
    assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed")
    assert "GET" in response.headers["allow"]
