"""Each kind of bad request at each position of a batch: its neighbours never notice."""

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
from d2serve.building.config import load_config
from d2serve.detector.native import NativeDetector
from d2serve.messages import HttpRequest, Part
from d2serve.model.config import RCNNConfig
from d2serve.model.meta_arch import build_model
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.telemetry import HttpResponse
from d2serve.settings import Settings
from tests.bad_requests import REFUSED, BadRequest
from tests.bodies import image_bytes, npy_bytes
from tests.fakes import facts
from tests.serving.traffic import assert_same_answer

NEIGHBOURS = 7
SIDE = 96


def pipeline(shapes: Path) -> Pipeline:
    """The bundled model behind the real pipeline; small pictures, as they are, make it quick."""
    config = load_config(shapes / "config.yaml")
    assert isinstance(config.family, RCNNConfig)
    few_proposals = replace(config.family.rpn, pre_nms_topk=300, post_nms_topk=60)
    config = replace(
        config,
        input=replace(config.input, min_size=0),
        family=replace(config.family, rpn=few_proposals),
    )
    model = build_model(config, read_checkpoint(shapes / "model_final.pth"), torch.device("cpu"))
    detector = NativeDetector(model, torch.device("cpu"), Settings())
    names = [f"class_{index}" for index in range(detector.num_classes)]
    model_facts = facts(*names, score_threshold=detector.score_threshold)
    return Pipeline(detector, model_facts, Settings())


@pytest.fixture(scope="module")
def neighbours(shapes: Path) -> list[HttpRequest]:
    """Good requests of different kinds, whose pictures run together."""
    pictures = [
        np.asarray(Image.open(sample).convert("RGB"))[60 : 60 + SIDE, x : x + SIDE]
        for sample in sorted((shapes / "samples").iterdir())
        for x in (40, 170)
    ][:NEIGHBOURS]
    as_npy = [HttpRequest({}, (Part("application/x-npy", npy_bytes(p)),)) for p in pictures[:3]]
    as_png = [HttpRequest({}, (Part("", image_bytes(p, "PNG")),)) for p in pictures[3:]]
    return [*as_npy, *as_png]


def request_of(bad: BadRequest) -> HttpRequest:
    return HttpRequest(bad.headers, (Part(bad.content_type, bad.body),))


@pytest.fixture(scope="module")
def served(shapes: Path) -> Pipeline:
    return pipeline(shapes)


@pytest.fixture(scope="module")
def alone(served: Pipeline, neighbours: Sequence[HttpRequest]) -> list[dict[str, Any]]:
    return [answer_of(*served.run([request])) for request in neighbours]


@pytest.mark.parametrize("kind", REFUSED)
def test_the_other_seven_get_the_answers_that_they_get_alone(
    served: Pipeline,
    neighbours: Sequence[HttpRequest],
    alone: Sequence[dict[str, Any]],
    kind: str,
) -> None:
    bad = REFUSED[kind]
    for position in range(NEIGHBOURS + 1):
        requests = [*neighbours[:position], request_of(bad), *neighbours[position:]]
        responses = served.run(requests)
        refused = responses.pop(position)
        assert (refused.status, json.loads(refused.body)["error"]["code"]) == (bad.status, bad.code)
        assert b"zqxcanary" not in refused.body
        for response, expected in zip(responses, alone, strict=True):
            assert_same_answer(answer_of(response), expected)


def test_most_neighbours_hold_something(alone: Sequence[dict[str, Any]]) -> None:
    assert sum(bool(answer["names"]) for answer in alone) > NEIGHBOURS / 2


def answer_of(response: HttpResponse) -> dict[str, Any]:
    assert response.status == 200
    answer: dict[str, Any] = json.loads(response.body)
    return answer
