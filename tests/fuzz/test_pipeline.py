"""Mutated requests through the pipeline: only valid responses and errors."""

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import event, given

from d2serve.messages import HttpRequest, Part
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.requests import HttpResponse
from d2serve.settings import Settings
from tests.fakes import FakeDetector, metadata_of
from tests.fuzz.corpus import SEEDS_BY_NAME, Seed
from tests.fuzz.mutations import mutated_seeds

SETTINGS = Settings(max_image_pixels=100_000, max_request_bytes=3_000_000, max_json_values=200_000)
PIPELINE = Pipeline(FakeDetector(), metadata_of("ball", "cube"), SETTINGS)
STATUSES = {200, 400, 406, 413, 415, 422}
CANARY = b"zqxcanary"


def request_of(seed: Seed) -> HttpRequest:
    part = Part(seed.headers.get("content-type", ""), seed.body)
    return HttpRequest(seed.headers, (part,))


def content_of(response: HttpResponse) -> tuple[int, str, bytes]:
    return response.status, response.content_type, response.body


NEIGHBOUR = request_of(SEEDS_BY_NAME["instances"])
[NEIGHBOUR_RESPONSE] = PIPELINE.run([NEIGHBOUR])


@given(seed=mutated_seeds())
def test_mutated_request_does_not_affect_its_neighbours(
    seed: Seed,
) -> None:
    before, response, after = PIPELINE.run([NEIGHBOUR, request_of(seed), NEIGHBOUR])
    event(f"status {response.status}")
    assert response.status in STATUSES
    assert content_of(before) == content_of(after) == content_of(NEIGHBOUR_RESPONSE)
    assert CANARY not in response.body
    assert CANARY.decode() not in str(response.headers)
    if response.status != 200:
        assert_is_an_error(response)


def assert_is_an_error(response: HttpResponse) -> None:
    content: Mapping[str, Any] = json.loads(response.body)
    assert response.content_type == "application/json"
    assert list(content) == ["error"]
    assert sorted(content["error"]) == ["code", "hint", "message"]
    assert b"Traceback" not in response.body
