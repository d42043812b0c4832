"""Section 3 of the contract: every option, every source, through the real servers."""

import json
from collections.abc import Callable
from typing import Any, TypeAlias

import httpx
import numpy as np
import pytest

from tests.serving.contract.rows import (
    CUSTOM_ATTRIBUTES,
    INFERENCE_ROUTES,
    Array,
    At,
    Sent,
    base64_of,
    json_of,
    npy_of,
    opened,
    png_of,
)

Predict: TypeAlias = Callable[[Array], dict[str, Any]]
Prediction: TypeAlias = dict[str, Any]
BUNDLED_THRESHOLD = 0.5


def by_query(http: httpx.Client, url: str, image: Array, name: str, value: str) -> httpx.Response:
    return png_of(image).post(http, url, **{name: value})


def by_pairs(http: httpx.Client, url: str, image: Array, name: str, value: str) -> httpx.Response:
    return png_of(image, **{CUSTOM_ATTRIBUTES: f"{name}={value}"}).post(http, url)


def by_json_attributes(
    http: httpx.Client, url: str, image: Array, name: str, value: str
) -> httpx.Response:
    attributes = json.dumps({name: value})
    return png_of(image, **{CUSTOM_ATTRIBUTES: attributes}).post(http, url)


def by_parameters(
    http: httpx.Client, url: str, image: Array, name: str, value: str
) -> httpx.Response:
    document = {"image": base64_of(png_of(image).body), "parameters": {name: value}}
    return json_of(document).post(http, url)


def by_form_field(
    http: httpx.Client, url: str, image: Array, name: str, value: str
) -> httpx.Response:
    files = {"data": ("a.png", png_of(image).body, "image/png")}
    return http.post(url, files=files, data={name: value})


SOURCES: dict[str, tuple[Callable[..., httpx.Response], tuple[str, ...]]] = {
    "query": (by_query, ("/invocations", "/predictions/{model}")),
    "pairs": (by_pairs, ("/invocations", "/predictions/{model}")),
    "json-attributes": (by_json_attributes, ("/invocations", "/predictions/{model}")),
    "parameters": (by_parameters, ("/invocations", "/predictions/{model}")),
    "form-field": (by_form_field, ("/invocations", "/predictions/{model}")),
}
EFFECTS: dict[str, tuple[str, Callable[[httpx.Response, Prediction], bool]]] = {
    "response_type": (
        "png",
        lambda response, _: opened(response.content).format == "PNG",
    ),
    "format": ("clarify", lambda response, found: response.json() == found["prediction"]),
    "masks": ("none", lambda response, _: response.json()["masks"] == []),
    "score_threshold": (
        "0.99",
        lambda response, found: (
            response.json()["scores"] == [score for score in found["scores"] if score >= 0.99]
        ),
    ),
    "max_detections": ("1", lambda response, found: response.json()["boxes"] == found["boxes"][:1]),
    "classes": (
        "star,1",
        lambda response, found: (
            response.json()["names"]
            == [name for name in found["names"] if name in ("star", "triangle")]
        ),
    ),
}


@pytest.mark.parametrize("option", EFFECTS)
@pytest.mark.parametrize("source", SOURCES)
def test_an_option_from_each_source(
    at: At,
    http: httpx.Client,
    image: Array,
    prediction_of: Predict,
    source: str,
    option: str,
) -> None:
    send, routes = SOURCES[source]
    value, took_effect = EFFECTS[option]
    for route in routes:
        response = send(http, at(route), image, option, value)
        assert response.status_code == 200, response.text
        assert took_effect(response, prediction_of(image))


def test_input_options_from_the_query(
    http: httpx.Client, url: str, image: Array, prediction_of: Predict
) -> None:
    sent = npy_of(image[:, :, ::-1].astype(np.float32))
    options = {"input_color": "bgr", "input_range": "0-255", "input_layout": "hwc"}
    response = sent.post(http, url, **options)
    assert response.json()["names"] == prediction_of(image)["names"]


@pytest.mark.parametrize("route", INFERENCE_ROUTES)
def test_the_query_of_every_route(
    at: At, http: httpx.Client, image: Array, prediction_of: Predict, route: str
) -> None:
    options = {"classes": "star,triangle", "max_detections": "1", "masks": "none"}
    response = png_of(image).post(http, at(route), **options)
    assert response.status_code == 200, response.text
    wanted = [name for name in prediction_of(image)["names"] if name in ("star", "triangle")]
    assert response.json()["names"] == wanted[:1]
    assert response.json()["masks"] == []


# Values of the custom attributes -> whether they contain the option masks=none.
FOREIGN = {
    "c000b4f9-df62-4c85-a0bf-7c525f9104a4": False,
    "trace-1": False,
    "accept_eula=true": False,
    "accept_eula=true;masks=none": True,
    "masks=none,accept_eula=true": True,
    '{"accept_eula": true, "masks": "none"}': True,
}


@pytest.mark.parametrize("attributes", FOREIGN)
def test_custom_attributes_that_are_no_options_are_ignored(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict, attributes: str
) -> None:
    response = png_of(image, **{CUSTOM_ATTRIBUTES: attributes}).post(http, route_url)
    assert response.status_code == 200, response.text
    assert response.json()["names"] == prediction_of(image)["names"]
    assert (response.json()["masks"] == []) == FOREIGN[attributes]


def test_several_options_at_once(
    http: httpx.Client, route_url: str, image: Array, prediction_of: Predict
) -> None:
    for attributes in (
        "classes=star,triangle;masks=none;max_detections=2",
        "masks=none,max_detections=2,classes=star,triangle",
        '{"classes": ["star", 1], "masks": "none", "max_detections": 2}',
    ):
        content = png_of(image, **{CUSTOM_ATTRIBUTES: attributes}).post(http, route_url).json()
        wanted = [n for n in prediction_of(image)["names"] if n in ("star", "triangle")]
        assert content["names"] == wanted[:2]
        assert content["masks"] == []


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "image/png"),
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("image/jpeg", "image/jpeg"),
        ("application/json", "application/json"),
        ("application/json;q=0.5, image/jpeg;q=0.9, text/html", "image/jpeg"),
    ],
)
def test_accept_takes_precedence_over_response_type(
    http: httpx.Client, route_url: str, image: Array, accept: str | None, media_type: str
) -> None:
    sent = png_of(image, **{CUSTOM_ATTRIBUTES: "response_type=png"})
    headers = {**sent.headers, **({"Accept": accept} if accept else {})}
    request = http.build_request("POST", route_url, content=sent.body, headers=headers)
    if accept is None:
        del request.headers["accept"]
    assert http.send(request).headers["content-type"] == media_type


def test_later_sources_take_precedence(http: httpx.Client, url: str, image: Array) -> None:
    body = json_of({"image": base64_of(png_of(image).body), "parameters": {"masks": "none"}}).body
    by_attributes = {CUSTOM_ATTRIBUTES: "masks=polygon;format=coco"}
    sent = Sent(body, "application/json", by_attributes)
    response = sent.post(http, url, masks="rle", format="clarify-scores")
    [first, *_] = response.json()
    assert "image_id" in first  # attributes take precedence over the query
    assert "segmentation" not in first  # parameters take precedence over attributes


INVALID: dict[str, tuple[str, str, str]] = {
    "unknown": ("zqxcanary", "1", "score_threshold"),
    "response_type": ("response_type", "zqxcanary", "jsonlines"),
    "format": ("format", "zqxcanary", "clarify-scores"),
    "masks": ("masks", "zqxcanary", "polygon"),
    "score_threshold-text": ("score_threshold", "zqxcanary", "1"),
    "score_threshold-above": ("score_threshold", "1.01", "1"),
    "score_threshold-nan": ("score_threshold", "nan", "1"),
    "score_threshold-below-the-networks": ("score_threshold", "0.4", str(BUNDLED_THRESHOLD)),
    "max_detections-zero": ("max_detections", "0", "1"),
    "max_detections-above": ("max_detections", "100000", "1"),
    "max_detections-half": ("max_detections", "1.5", "1"),
    "classes-unknown": ("classes", "zqxcanary", "star"),
    "classes-id": ("classes", "6", "0 to 5"),
    "classes-empty": ("classes", "", "star"),
    "input_layout": ("input_layout", "zqxcanary", "chw"),
    "input_color": ("input_color", "zqxcanary", "bgr"),
    "input_range": ("input_range", "zqxcanary", "-1-1"),
}


@pytest.mark.parametrize("row", INVALID)
@pytest.mark.parametrize("source", SOURCES)
def test_an_unknown_option_or_value_is_a_400_that_names_the_valid_ones(
    at: At, http: httpx.Client, image: Array, source: str, row: str
) -> None:
    send, routes = SOURCES[source]
    option, value, named = INVALID[row]
    for route in routes:
        response = send(http, at(route), image, option, value)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert error["code"] == "bad_request"
        assert named in error["message"] + error["hint"]
        assert "zqxcanary" not in response.text
