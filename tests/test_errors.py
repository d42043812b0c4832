"""The error responses of the contract."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from d2serve.errors import (
    CODES,
    RequestError,
    bad_request,
    client_closed,
    headers_too_large,
    internal,
    method_not_allowed,
    not_acceptable,
    not_found,
    out_of_memory,
    overloaded,
    request_timeout,
    too_large,
    unauthorized,
    unprocessable,
    unsupported_media_type,
)


@pytest.mark.parametrize(
    ("make", "status", "code"),
    [
        pytest.param(bad_request, 400, "bad_request", id="400"),
        pytest.param(not_acceptable, 406, "not_acceptable", id="406"),
        pytest.param(request_timeout, 408, "request_timeout", id="408"),
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


FIXED = {
    401: unauthorized(),
    404: not_found(),
    405: method_not_allowed("GET", "HEAD"),
    431: headers_too_large(65536),
    499: client_closed(),
    500: internal(),
    503: overloaded("the request queue is full", 7),
    507: out_of_memory(),
}
HEADERS = {
    401: {"WWW-Authenticate": "Bearer"},
    405: {"Allow": "GET, HEAD"},
    503: {"Retry-After": "7"},
}


@pytest.mark.parametrize("status", FIXED)
def test_other_errors_have_their_status_code_and_headers(status: int) -> None:
    error = FIXED[status]
    assert error.status == status
    assert (error.status, error.code) in CODES
    assert error.headers == HEADERS.get(status, {})
    assert error.message
    assert error.hint


def test_routes_of_images_accept_post_only_by_default() -> None:
    error = method_not_allowed()
    assert error.headers == {"Allow": "POST"}
    assert error.hint == "use POST"


def test_each_code_has_a_function(repo_root: Path) -> None:
    source = (repo_root / "handler" / "d2serve" / "errors.py").read_text(encoding="utf-8")
    raised = set(re.findall(r'RequestError\(\s*(?:CLIENT_CLOSED_REQUEST|\d+),\s*"(\w+)"', source))
    assert raised == {code for _, code in CODES}


def test_internal_error_is_a_500_with_a_fixed_text() -> None:
    error = internal()
    assert error.status == 500
    assert error.body()["error"]["code"] == "internal"
    assert error.message
    assert error.hint
