from collections.abc import Callable

import pytest

from d2serve.errors import (
    CODES,
    RequestError,
    bad_request,
    internal,
    not_acceptable,
    out_of_memory,
    too_large,
    unprocessable,
    unsupported_media_type,
)


@pytest.mark.parametrize(
    ("make", "status", "code"),
    [
        pytest.param(bad_request, 400, "bad_request", id="400"),
        pytest.param(not_acceptable, 406, "not_acceptable", id="406"),
        pytest.param(too_large, 413, "too_large", id="413"),
        pytest.param(unsupported_media_type, 415, "unsupported_media_type", id="415"),
        pytest.param(unprocessable, 422, "unprocessable", id="422"),
    ],
)
def test_request_errors_follow_the_contract(
    make: Callable[[str, str], RequestError], status: int, code: str
) -> None:
    error = make("what is wrong", "how to fix it")
    assert error.status == status
    assert (error.status, error.code) in CODES
    assert str(error) == "what is wrong"
    assert error.body() == {
        "error": {"code": code, "message": "what is wrong", "hint": "how to fix it"}
    }


def test_server_errors_have_the_contracts_codes() -> None:
    for error in (internal(), out_of_memory()):
        assert (error.status, error.code) in CODES


def test_internal_error_is_a_500_with_a_fixed_text() -> None:
    error = internal()
    assert error.status == 500
    assert error.body()["error"]["code"] == "internal"
    assert error.message
    assert error.hint
