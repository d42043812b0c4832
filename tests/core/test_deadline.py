"""Request deadlines, with a clock set by the test."""

import pytest

from d2serve.errors import RequestError
from d2serve.serving.pipeline import check_deadline

NOW = 1000.0


def check(headers: dict[str, str], longest_wait_s: float = 60) -> None:
    check_deadline(headers, longest_wait_s, lambda: NOW)


@pytest.mark.parametrize(
    ("headers", "longest_wait_s"),
    [
        pytest.param({}, 60, id="no proxy"),
        pytest.param({"x-d2serve-timeout-ms": "1"}, 60, id="no proxy, client timeout"),
        pytest.param({"x-d2serve-arrived": "940.1"}, 60, id="in time"),
        pytest.param({"x-d2serve-arrived": "1.0"}, 0, id="no limit"),
        pytest.param(
            {"x-d2serve-arrived": "999.0", "x-d2serve-timeout-ms": "1500"}, 60, id="client timeout"
        ),
        pytest.param({"x-d2serve-arrived": "soon"}, 60, id="forged"),
        pytest.param({"x-d2serve-arrived": "nan"}, 60, id="forged nan"),
        pytest.param({"x-d2serve-arrived": "2000"}, 60, id="forged future"),
    ],
)
def test_request_before_its_deadline_passes(headers: dict[str, str], longest_wait_s: float) -> None:
    check(headers, longest_wait_s)


@pytest.mark.parametrize(
    ("headers", "longest_wait_s", "message"),
    [
        ({"x-d2serve-arrived": "939.9"}, 60, "longer than 60 s"),
        ({"x-d2serve-arrived": "998", "x-d2serve-timeout-ms": "1500"}, 60, "longer than 1.5 s"),
        ({"x-d2serve-arrived": "998", "x-d2serve-timeout-ms": "1500"}, 0, "longer than 1.5 s"),
        ({"x-d2serve-arrived": "939", "x-d2serve-timeout-ms": "90000"}, 60, "longer than 60 s"),
        ({"x-d2serve-arrived": "-inf"}, 60, "longer than 60 s"),
    ],
)
def test_request_after_its_deadline_is_a_503(
    headers: dict[str, str], longest_wait_s: float, message: str
) -> None:
    with pytest.raises(RequestError, match=message) as raised:
        check(headers, longest_wait_s)
    assert (raised.value.status, raised.value.code) == (503, "overloaded")


@pytest.mark.parametrize("text", ["", "soon", "0", "-5", "nan", "inf", "1e999"])
def test_invalid_timeout_header_is_a_400(text: str) -> None:
    with pytest.raises(RequestError, match="x-d2serve-timeout-ms") as raised:
        check({"x-d2serve-timeout-ms": text})
    assert raised.value.status == 400
