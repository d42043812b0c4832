"""Mutated requests through the pipeline: only valid responses and errors."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import event, given

from d2serve.messages import HttpRequest, Part
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.requests import HttpResponse
from d2serve.settings import Settings
from tests.fakes import FakeDetector, metadata_of
from tests.fuzz.corpus import SEEDS_BY_NAME, Seed
from tests.fuzz.mutations import mutated_seeds

SETTINGS = Settings(max_image_pixels=100_000, max_request_bytes=3_000_000, max_json_values=200_000)
STATUSES = {200, 400, 406, 413, 415, 422}
CANARY = b"zqxcanary"


def request_of(seed: Seed) -> HttpRequest:
    part = Part(seed.headers.get("content-type", ""), seed.body)
    return HttpRequest(seed.headers, (part,))


def content_of(response: HttpResponse) -> tuple[int, str, bytes]:
    return response.status, response.content_type, response.body


NEIGHBOUR = request_of(SEEDS_BY_NAME["instances"])


@pytest.fixture(scope="module")
def served() -> Iterator[Pipeline]:
    served = Pipeline(
        FakeDetector(), metadata_of("ball", "cube"), SETTINGS, threads=2, server_forms_batches=True
    )
    yield served
    served.close()


@pytest.fixture(scope="module")
def expected(served: Pipeline) -> tuple[int, str, bytes]:
    """The response to the neighbour alone."""
    [response] = served.run([NEIGHBOUR])
    assert response.status == 200
    return content_of(response)


@given(seed=mutated_seeds())
def test_mutated_request_does_not_affect_its_neighbours(
    served: Pipeline, expected: tuple[int, str, bytes], seed: Seed
) -> None:
    before, response, after = served.run([NEIGHBOUR, request_of(seed), NEIGHBOUR])
    assert served.queued == 0
    event(f"status {response.status}")
    assert response.status in STATUSES
    assert content_of(before) == content_of(after) == expected
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
