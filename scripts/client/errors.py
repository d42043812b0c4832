"""Why there is no answer, in the API's own terms, whichever way the request took.

CommandError
    PredictionError     the server refused the request, or broke off
    UnreachableError    nothing is there
"""

import json
from http import HTTPStatus
from typing import Any

from scripts.errors import CommandError

COME_BACK_LATER = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
LONGEST_QUOTE = 200


class UnreachableError(CommandError):
    """There is no server, or no such endpoint."""


class PredictionError(CommandError):
    """The server refused a request, or broke off.

    Attributes:
        status: the HTTP status; 0 if there was no answer.
        code: the API's code, such as bad_request.
        message: what is wrong.
        hint: what to do about it; may be empty.
        may_pass: whether the same request may be answered later.
    """

    def __init__(
        self, status: int, code: str, message: str, hint: str = "", *, may_pass: bool = False
    ) -> None:
        super().__init__(f"{code}: {message}" + (f" ({hint})" if hint else ""))
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.may_pass = may_pass or status in COME_BACK_LATER


def refusal(status: int, body: str, phrase: str = "", *, may_pass: bool = False) -> PredictionError:
    """Reads the API's error body, or what something in front of the handler says instead."""
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    fields: dict[str, Any] = content if isinstance(content, dict) else {}
    error = fields.get("error")
    if isinstance(error, dict):
        fields = error
    code = fields.get("code") if fields is error else f"http_{status}"
    message = fields.get("message") or body.strip()[:LONGEST_QUOTE] or phrase
    hint = str(fields.get("hint") or "")
    return PredictionError(status, str(code), str(message), hint, may_pass=may_pass)
