"""Routes of roboflow's inference server, with fakes in place of the core."""

import json
from typing import Any

import pytest

from d2serve.servers.asgi.app import create_app
from d2serve.servers.asgi.frame import Access
from d2serve.servers.asgi.models import Models
from d2serve.settings import Settings
from tests.servers.asgi.fakes import SHAPES, FakePipeline, send

ROUTE = "/infer/instance_segmentation"
BODY = {"model_id": "shapes/1", "image": {"type": "base64", "value": "AAAA"}, "api_key": "a"}


def sent(pipeline: FakePipeline) -> dict[str, Any]:
    """The only document that the core received."""
    [request] = pipeline.requests
    assert (request.headers["content-type"], dict(request.query)) == ("application/json", {})
    document: dict[str, Any] = json.loads(request.parts[0].body)
    return document


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"confidence": 0.1}, {"score_threshold": SHAPES.score_threshold}),
        ({"confidence": 0.7}, {"score_threshold": 0.7}),
        ({"confidence": "default"}, {}),
        ({"confidence": "high"}, {"score_threshold": "high"}),
        ({"max_detections": 300}, {"max_detections": SHAPES.max_detections}),
        ({"max_detections": 0}, {"max_detections": 0}),
        ({"class_filter": ["star"]}, {"classes": ["star"]}),
        ({"class_filter": []}, {}),
        ({"response_mask_format": "rle"}, {"masks": "rle"}),
        ({"iou_threshold": 0.3, "source": "a", "keypoint_confidence": 0.5}, {}),
    ],
)
def test_options_are_translated(options: dict[str, Any], expected: dict[str, Any]) -> None:
    pipeline = FakePipeline()
    assert send(create_app({"shapes": pipeline}), "POST", ROUTE, json=BODY | options).is_success
    parameters = {"format": "roboflow", "masks": "polygon", **expected}
    assert sent(pipeline) == {"images": ["AAAA"], "parameters": parameters}


def test_each_drawn_image_is_a_request_of_its_own() -> None:
    pipeline = FakePipeline()
    body = BODY | {"image": ["AAAA", "BBBB"], "visualize_predictions": True}
    send(create_app({"shapes": pipeline}), "POST", ROUTE, json=body)
    images = [json.loads(request.parts[0].body)["images"] for request in pipeline.requests]
    assert images == [["AAAA", "BBBB"], ["AAAA"], ["BBBB"]]
    accepted = [request.headers.get("accept") for request in pipeline.requests]
    assert accepted == [None, "image/jpeg", "image/jpeg"]


def test_drawn_images_count_as_images_of_the_request() -> None:
    pipeline = FakePipeline(settings=Settings(max_images_per_request=2))
    body = BODY | {"image": ["AAAA"] * 3, "visualize_predictions": True}
    response = send(create_app({"shapes": pipeline}), "POST", ROUTE, json=body)
    assert (response.status_code, len(pipeline.requests)) == (413, 0)
    assert "max_images_per_request" in response.json()["message"]


def test_version_0_has_options_in_the_query_string() -> None:
    pipeline = FakePipeline()
    route = "/shapes/1?confidence=60&api_key=a&overlap=30"
    assert send(create_app({"shapes": pipeline}), "POST", route, content=b"AAAA").is_success
    parameters = {"format": "roboflow", "masks": "polygon", "score_threshold": 0.6}
    assert sent(pipeline) == {"images": ["AAAA"], "parameters": parameters}


@pytest.mark.parametrize("model_id", ["circles", "shapes/2", "shapes/1/1", ""])
@pytest.mark.parametrize("route", [ROUTE, "/model/add"])
def test_an_unknown_model_is_404_with_a_message(route: str, model_id: str) -> None:
    app = create_app({"shapes": FakePipeline()})
    response = send(app, "POST", route, json=BODY | {"model_id": model_id})
    assert response.status_code == 404
    error = response.json()["error"]
    assert response.json()["message"] == f"{error['message']}; {error['hint']}"


def test_an_added_model_has_the_requested_id() -> None:
    app = create_app({"shapes": FakePipeline(), "pets": FakePipeline()})
    models = send(app, "POST", "/model/add", json={"model_id": "pets/1"}).json()["models"]
    assert [model["model_id"] for model in models] == ["shapes", "pets", "pets/1"]


def test_a_server_that_is_not_ready_or_full_is_503() -> None:
    for app in (
        create_app(Models(["shapes"])),
        create_app({"shapes": FakePipeline(is_full=True)}),
    ):
        response = send(app, "POST", ROUTE, json=BODY)
        assert (response.status_code, "Retry-After" in response.headers) == (503, True)
        assert response.json()["message"]


@pytest.mark.parametrize(
    ("method", "route"),
    [("GET", "/info"), ("GET", "/model/registry"), ("POST", ROUTE), ("POST", "/shapes/1")],
)
def test_the_token_is_required(method: str, route: str) -> None:
    app = create_app({"shapes": FakePipeline()}, access=Access("secret-token"))
    body = json.dumps(BODY) if method == "POST" else None
    assert send(app, method, f"{route}?api_key=secret-token", content=body).status_code == 401
    headers = {"Authorization": "Bearer secret-token"}  # api_key_transport="header"
    assert send(app, method, route, content=body, headers=headers).is_success
