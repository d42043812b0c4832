"""Requests of many clients share batches, and each gets its own response."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import httpx
import pytest

from tests.conftest import BATCH_SIZE
from tests.serving.traffic import (
    Body,
    assert_rejected,
    assert_same_prediction,
    broken_bodies,
    image_body,
    images_run_together,
    npy_body,
    pixels,
)

CLIENTS = 32
ROUNDS = 3


@pytest.fixture(scope="module")
def good(jpeg: Path, png: Path) -> list[Body]:
    """The NPY has the PNG's image, so at least these two can share a forward pass."""
    return [image_body(jpeg), image_body(png), npy_body(pixels(png))]


def test_concurrent_clients_get_the_same_responses_as_single_ones(
    http: httpx.Client, url: str, good: list[Body], png: Path
) -> None:
    alone = {body: body.post(http, url).json() for body in good}
    broken = {case.body: case for case in broken_bodies(png)}
    bodies = _interleave(good, list(broken))
    responses = _post_at_once(bodies * ROUNDS, url)
    for body, response in zip(bodies * ROUNDS, responses, strict=True):
        if body in broken:
            assert_rejected(response, broken[body])
        else:
            assert response.status_code == 200, response.text
            assert_same_prediction(response.json(), alone[body])
    together = [images_run_together(response) for response in responses]
    assert 1 < max(together) <= BATCH_SIZE


def test_overlays_and_json_share_a_batch(http: httpx.Client, url: str, png: Path) -> None:
    json = image_body(png)
    drawn = Body(json.content, json.content_type, "image/png")
    alone = {body: body.post(http, url) for body in (json, drawn)}
    bodies = [json, drawn] * 8
    for body, response in zip(bodies, _post_at_once(bodies, url), strict=True):
        assert response.headers["content-type"] == body.accept
        if body is json:
            assert_same_prediction(response.json(), alone[json].json())
        else:
            assert len(response.content) == pytest.approx(len(alone[drawn].content), rel=0.01)


def _interleave(good: Sequence[Body], broken: Sequence[Body]) -> list[Body]:
    """As many bodies as clients, alternately good and broken."""
    pairs = ((good[i % len(good)], broken[i % len(broken)]) for i in range(CLIENTS // 2))
    return [body for pair in pairs for body in pair]


def _post_at_once(bodies: Sequence[Body], url: str) -> list[httpx.Response]:
    """Every client has its own connection, and all send at the same time, round by round."""
    clients = min(len(bodies), CLIENTS)
    start = Barrier(clients)

    def post(body: Body) -> httpx.Response:
        with httpx.Client(timeout=120, trust_env=False) as http:
            start.wait(timeout=60)
            return body.post(http, url)

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(post, bodies))
