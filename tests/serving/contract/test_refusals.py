"""Section 5 of the contract: every error, through the real servers."""

import httpx
import numpy as np
import pytest

from d2serve.servers.torchserve.launcher.server import MODEL, REQUESTS
from tests.bad_requests import HOSTILE, REJECTED, BadRequest
from tests.serving.contract.rows import npy_of
from tests.serving.served import Served, request_line, worker_of

CANARY = "zqxcanary"
MORE_MEMORY, ROUNDS = 50e6, 4
INTERNALS = ("Traceback", "/tmp", "handler/", "d2serve/", ".py", "site-packages")


def post(http: httpx.Client, url: str, bad: BadRequest) -> httpx.Response:
    headers = {**bad.headers, "Content-Type": bad.content_type}
    return http.post(url, content=bad.body, headers=headers)


@pytest.mark.parametrize("name", REJECTED)
def test_a_bad_request_is_rejected_with_its_error(
    http: httpx.Client, route_url: str, name: str
) -> None:
    bad = REJECTED[name]
    response = post(http, route_url, bad)
    assert response.status_code == bad.status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    error = response.json()["error"]
    assert sorted(error) == ["code", "hint", "message"]
    assert error["code"] == bad.code
    assert all(isinstance(text, str) and text for text in error.values())
    received = f"{response.headers} {response.text}"
    assert not [word for word in (*INTERNALS, CANARY) if word in received]


def test_the_hint_for_raw_values_sent_as_npy_names_numpy_save(
    http: httpx.Client, route_url: str
) -> None:
    response = http.post(
        route_url, content=bytes(300), headers={"Content-Type": "application/x-npy"}
    )
    assert "numpy.save" in response.json()["error"]["hint"]


def test_more_bytes_than_the_settings_allow(http: httpx.Client, route_url: str) -> None:
    response = http.post(route_url, content=bytes(100_000_001))
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")


def test_more_pixels_than_the_settings_allow(http: httpx.Client, route_url: str) -> None:
    response = npy_of(np.zeros((7_100, 7_100), np.uint8)).post(http, route_url)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")


def test_hostile_requests_do_not_increase_the_workers_memory(
    served: Served, http: httpx.Client, url: str
) -> None:
    """A leak grows in each round; memory that threads keep for later requests does not."""
    worker = worker_of(served)

    def memory_after_a_round() -> int:
        for bad in HOSTILE.values():
            post(http, url, bad)
        return int(worker.memory_info().rss)

    before = memory_after_a_round()
    for _ in range(ROUNDS):
        after = memory_after_a_round()
        if after <= before + MORE_MEMORY:
            return
        before = after
    pytest.fail(f"each of {ROUNDS} rounds takes more than {MORE_MEMORY / 1e6:.0f} MB")


def test_a_rejected_request_is_logged_with_its_id_code_and_message(
    served: Served, http: httpx.Client, url: str
) -> None:
    response = post(http, url, REJECTED["content-type"])
    request_id, error = response.headers["x-request-id"], response.json()["error"]
    line = request_line(served, request_id)
    assert (line["status"], line["code"]) == (415, error["code"])
    assert line["message"] == error["message"]
    assert CANARY not in served.logs.text(MODEL) + served.logs.text(REQUESTS)
