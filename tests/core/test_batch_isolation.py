"""Invalid requests at each position of a batch do not change the other responses."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle
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
from tests.core.requests import batch_size
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
    return Pipeline(detector, metadata, Settings(), threads=2, server_forms_batches=True)


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
def served(shapes: Path) -> Iterator[Pipeline]:
    with pytest.MonkeyPatch.context() as patch:
        # On a busy machine the requests' decoding may take longer than a batch waits for it.
        patch.setattr("d2serve.serving.pipeline.DECODING_WAIT_S", 60.0)
        served = pipeline(shapes)
    yield served
    served.close()


@pytest.fixture(scope="module")
def alone(served: Pipeline, valid_requests: Sequence[HttpRequest]) -> list[dict[str, Any]]:
    return [prediction_of(*served.run([request])) for request in valid_requests]


# An invalid request at each position at once, and a single one at positions that take turns.
PLACES = [
    *(pytest.param(kind, range(VALID_REQUESTS + 1), id=f"{kind}-everywhere") for kind in REJECTED),
    *(
        pytest.param(kind, range(position, position + 1), id=f"{kind}-at-{position}")
        for kind, position in zip(REJECTED, cycle(range(VALID_REQUESTS + 1)), strict=False)
    ),
]


@pytest.mark.parametrize(("kind", "positions"), PLACES)
def test_invalid_request_does_not_change_other_responses(
    served: Pipeline,
    valid_requests: Sequence[HttpRequest],
    alone: Sequence[dict[str, Any]],
    kind: str,
    positions: range,
) -> None:
    invalid = REJECTED[kind]
    requests = list(valid_requests)
    for position in reversed(positions):
        requests.insert(position, request_of(invalid))
    responses = served.run(requests)
    valid = [response for response in responses if response.status == 200]
    rejected = [response for response in responses if response.status != 200]
    expected_statuses = [
        200 if request in valid_requests else invalid.status for request in requests
    ]
    assert [response.status for response in responses] == expected_statuses
    for response in rejected:
        assert (response.status, json.loads(response.body)["error"]["code"]) == (
            invalid.status,
            invalid.code,
        )
        assert b"zqxcanary" not in response.body
    for response, expected in zip(valid, alone, strict=True):
        assert_same_prediction(prediction_of(response), expected)
        assert batch_size(response) == VALID_REQUESTS


def test_most_valid_requests_have_detections(alone: Sequence[dict[str, Any]]) -> None:
    assert sum(bool(prediction["names"]) for prediction in alone) > VALID_REQUESTS / 2


def prediction_of(response: HttpResponse) -> dict[str, Any]:
    assert response.status == 200
    prediction: dict[str, Any] = json.loads(response.body)
    return prediction
