"""Deadlines of requests, with a clock set by the test."""

import math
from collections.abc import Mapping

import pytest

from d2serve.errors import RequestError
from d2serve.messages import HttpRequest
from d2serve.serving.request_log import received
from d2serve.serving.request_state import RequestState
from d2serve.serving.stages import client_timeout_s
from tests.core.requests import GOOD, pipeline

ARRIVED = 1000.0


def state_of(*limits_s: float, deadline: float = math.inf, closed: bool = False) -> RequestState:
    request = HttpRequest(
        {}, (), arrived=ARRIVED, deadline=deadline, is_disconnected=lambda: closed
    )
    state = RequestState(request, received(request))
    for limit_s in limits_s:
        state.limit_wait(limit_s)
    return state


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the request state reads."""
    now = [ARRIVED]
    monkeypatch.setattr("d2serve.serving.request_state.time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("limits_s", "deadline", "waits_s"),
    [
        pytest.param((60,), math.inf, 60, id="one limit"),
        pytest.param((60, 1.5), math.inf, 1.5, id="the shorter limit"),
        pytest.param((1.5, math.inf), math.inf, 1.5, id="no second limit"),
        pytest.param((60,), ARRIVED + 2, 2, id="the server's own deadline"),
        pytest.param((0.5,), ARRIVED + 2, 0.5, id="before the server's own deadline"),
    ],
)
def test_request_waits_until_its_deadline(
    now: list[float], limits_s: tuple[float, ...], deadline: float, waits_s: float
) -> None:
    state = state_of(*limits_s, deadline=deadline)
    now[0] = ARRIVED + waits_s
    state.require_client()
    now[0] = ARRIVED + waits_s + 0.01
    with pytest.raises(RequestError, match=f"has waited longer than {waits_s:g} s") as raised:
        state.require_client()
    assert (raised.value.status, raised.value.code) == (503, "overloaded")


def test_request_without_limits_waits_forever(now: list[float]) -> None:
    state = state_of(math.inf)
    now[0] = ARRIVED + 1e9
    state.require_client()


def test_request_arrives_at_its_submission_by_default(now: list[float]) -> None:
    now[0] = ARRIVED + 5
    request = HttpRequest({}, ())
    assert RequestState(request, received(request)).arrived == ARRIVED + 5


def test_disconnect_is_a_499_also_after_the_deadline(now: list[float]) -> None:
    state = state_of(1, closed=True)
    now[0] = ARRIVED + 2
    with pytest.raises(RequestError, match="disconnected") as raised:
        state.require_client()
    assert (raised.value.status, raised.value.code) == (499, "client_closed_request")


@pytest.mark.parametrize(
    ("headers", "timeout_s"),
    [
        ({}, math.inf),
        ({"x-d2serve-timeout-ms": "1500"}, 1.5),
        ({"x-d2serve-timeout-ms": "0.5"}, 0.0005),
    ],
)
def test_timeout_of_the_client(headers: Mapping[str, str], timeout_s: float) -> None:
    assert client_timeout_s(headers) == timeout_s


@pytest.mark.parametrize("text", ["", "soon", "0", "-5", "nan", "inf", "1e999"])
def test_invalid_timeout_header_is_a_400(text: str) -> None:
    with pytest.raises(RequestError, match="x-d2serve-timeout-ms") as raised:
        client_timeout_s({"x-d2serve-timeout-ms": text})
    assert raised.value.status == 400


@pytest.mark.parametrize(
    ("headers", "longest_wait_seconds", "age_s", "status"),
    [
        pytest.param({}, 60, 59.9, 200, id="in time"),
        pytest.param({}, 60, 60.1, 503, id="too old"),
        pytest.param({}, 0, 1e6, 200, id="any age"),
        pytest.param({"x-d2serve-timeout-ms": "1500"}, 60, 1.6, 503, id="client's timeout"),
        pytest.param({"x-d2serve-timeout-ms": "1500"}, 0, 1.6, 503, id="client's timeout only"),
        pytest.param({"x-d2serve-timeout-ms": "90000"}, 60, 61, 503, id="client's longer timeout"),
        pytest.param({"x-d2serve-timeout-ms": "soon"}, 60, 0, 400, id="invalid"),
    ],
)
def test_age_of_a_request_at_its_submission(
    now: list[float],
    headers: Mapping[str, str],
    longest_wait_seconds: int,
    age_s: float,
    status: int,
) -> None:
    now[0] = ARRIVED + age_s
    request = HttpRequest(headers, GOOD["png"].parts, arrived=ARRIVED)
    [response] = pipeline(longest_wait_seconds=longest_wait_seconds).run([request])
    assert response.status == status
