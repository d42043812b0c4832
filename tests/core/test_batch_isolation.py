"""Invalid requests at each position of a batch do not change the other responses."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from d2serve.building.checkpoint import read_checkpoint
from d2serve.building.checkpoint_loading import build_from_checkpoint
from d2serve.building.config import load_config
from d2serve.detector.native import NativeDetector
from d2serve.messages import HttpRequest, Part
from d2serve.model.config import RCNNConfig
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.requests import HttpResponse
from d2serve.settings import Settings
from tests.bad_requests import REJECTED, BadRequest
from tests.bodies import image_bytes, npy_bytes
from tests.fakes import metadata_of
from tests.serving.traffic import assert_same_prediction

VALID_REQUESTS = 7
SIDE = 96


def pipeline(shapes: Path) -> Pipeline:
    """The bundled model without resizing and with few proposals, which makes it fast."""
    config = load_config(shapes / "config.yaml")
    assert isinstance(config.family, RCNNConfig)
    few_proposals = replace(config.family.rpn, pre_nms_topk=300, post_nms_topk=60)
    config = replace(
        config,
        input=replace(config.input, min_size=0),
        family=replace(config.family, rpn=few_proposals),
    )
    model = build_from_checkpoint(
        config, read_checkpoint(shapes / "model_final.pth"), torch.device("cpu")
    )
    detector = NativeDetector(model, torch.device("cpu"), Settings())
    names = [f"class_{index}" for index in range(detector.num_classes)]
    metadata = metadata_of(*names, score_threshold=detector.score_threshold)
    return Pipeline(detector, metadata, Settings())


@pytest.fixture(scope="module")
def valid_requests(shapes: Path) -> list[HttpRequest]:
    """Valid requests of different kinds, whose images run together."""
    images = [
        np.asarray(Image.open(sample).convert("RGB"))[60 : 60 + SIDE, x : x + SIDE]
        for sample in sorted((shapes / "samples").iterdir())
        for x in (40, 170)
    ][:VALID_REQUESTS]
    as_npy = [HttpRequest({}, (Part("application/x-npy", npy_bytes(p)),)) for p in images[:3]]
    as_png = [HttpRequest({}, (Part("", image_bytes(p, "PNG")),)) for p in images[3:]]
    return [*as_npy, *as_png]


def request_of(invalid: BadRequest) -> HttpRequest:
    return HttpRequest(invalid.headers, (Part(invalid.content_type, invalid.body),))


@pytest.fixture(scope="module")
def served(shapes: Path) -> Pipeline:
    return pipeline(shapes)


@pytest.fixture(scope="module")
def alone(served: Pipeline, valid_requests: Sequence[HttpRequest]) -> list[dict[str, Any]]:
    return [prediction_of(*served.run([request])) for request in valid_requests]


@pytest.mark.parametrize("kind", REJECTED)
def test_invalid_request_does_not_change_other_responses(
    served: Pipeline,
    valid_requests: Sequence[HttpRequest],
    alone: Sequence[dict[str, Any]],
    kind: str,
) -> None:
    invalid = REJECTED[kind]
    for position in range(VALID_REQUESTS + 1):
        requests = [*valid_requests[:position], request_of(invalid), *valid_requests[position:]]
        responses = served.run(requests)
        rejected = responses.pop(position)
        assert (rejected.status, json.loads(rejected.body)["error"]["code"]) == (
            invalid.status,
            invalid.code,
        )
        assert b"zqxcanary" not in rejected.body
        for response, expected in zip(responses, alone, strict=True):
            assert_same_prediction(prediction_of(response), expected)


def test_most_valid_requests_have_detections(alone: Sequence[dict[str, Any]]) -> None:
    assert sum(bool(prediction["names"]) for prediction in alone) > VALID_REQUESTS / 2


def prediction_of(response: HttpResponse) -> dict[str, Any]:
    assert response.status == 200
    prediction: dict[str, Any] = json.loads(response.body)
    return prediction
