"""Which requests have waited too long, by a clock that the test sets."""

import pytest

from d2serve.errors import RequestError
from d2serve.serving.deadline import check_patience

NOW = 1000.0


def check(headers: dict[str, str], longest_wait_s: float = 60) -> None:
    check_patience(headers, longest_wait_s, lambda: NOW)


@pytest.mark.parametrize(
    ("headers", "longest_wait_s"),
    [
        pytest.param({}, 60, id="no front door"),
        pytest.param({"x-d2serve-timeout-ms": "1"}, 60, id="no front door, a time limit"),
        pytest.param({"x-d2serve-arrived": "940.1"}, 60, id="in time"),
        pytest.param({"x-d2serve-arrived": "1.0"}, 0, id="no limit"),
        pytest.param(
            {"x-d2serve-arrived": "999.0", "x-d2serve-timeout-ms": "1500"}, 60, id="client's own"
        ),
        pytest.param({"x-d2serve-arrived": "soon"}, 60, id="forged"),
        pytest.param({"x-d2serve-arrived": "nan"}, 60, id="forged nan"),
        pytest.param({"x-d2serve-arrived": "2000"}, 60, id="forged future"),
    ],
)
def test_who_may_still_wait(headers: dict[str, str], longest_wait_s: float) -> None:
    check(headers, longest_wait_s)


@pytest.mark.parametrize(
    ("headers", "longest_wait_s", "said"),
    [
        ({"x-d2serve-arrived": "939.9"}, 60, "longer than 60 s"),
        ({"x-d2serve-arrived": "998", "x-d2serve-timeout-ms": "1500"}, 60, "longer than 1.5 s"),
        ({"x-d2serve-arrived": "998", "x-d2serve-timeout-ms": "1500"}, 0, "longer than 1.5 s"),
        ({"x-d2serve-arrived": "939", "x-d2serve-timeout-ms": "90000"}, 60, "longer than 60 s"),
        ({"x-d2serve-arrived": "-inf"}, 60, "longer than 60 s"),
    ],
)
def test_who_has_given_up(headers: dict[str, str], longest_wait_s: float, said: str) -> None:
    with pytest.raises(RequestError, match=said) as refused:
        check(headers, longest_wait_s)
    assert (refused.value.status, refused.value.code) == (503, "overloaded")


@pytest.mark.parametrize("text", ["", "soon", "0", "-5", "nan", "inf", "1e999"])
def test_a_time_limit_is_a_positive_number(text: str) -> None:
    with pytest.raises(RequestError, match="x-d2serve-timeout-ms") as refused:
        check({"x-d2serve-timeout-ms": text})
    assert refused.value.status == 400
