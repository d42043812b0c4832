"""HTTP responses of the core."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from d2serve.errors import RequestError
from d2serve.outputs.accept import JSON


@dataclass(frozen=True)
class HttpResponse:
    """An HTTP response.

    Attributes:
        status: the HTTP status.
        content_type: the value of Content-Type.
        body: the body.
        headers: all other headers.
    """

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def error_response(error: RequestError, *, is_open_inference: bool = False) -> HttpResponse:
    """Encode an error as the contract defines it.

    Args:
        error: the error.
        is_open_inference: whether the body has the form of the Open Inference Protocol.

    Examples:
        >>> from d2serve.errors import overloaded
        >>> error_response(overloaded("the queue is full"), is_open_inference=True).body
        b'{"error": "the queue is full; send the request again later"}'
    """
    content = error.body(is_open_inference=is_open_inference)
    return HttpResponse(error.status, JSON, json.dumps(content).encode("ascii"), error.headers)
