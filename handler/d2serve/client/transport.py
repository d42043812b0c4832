"""Requests, replies and errors shared by all transports."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from d2serve.client.images import UNKNOWN_TYPE, content_type_of
from d2serve.errors import PredictionError

JSON = "application/json"
NPY = "application/x-npy"
MAX_QUOTED_CHARACTERS = 200
# An image file, its encoded bytes, or an array as docs/api.md describes: UInt8[H, W, 3] RGB etc.
ImageInput: TypeAlias = "Path | bytes | np.ndarray[Any, Any]"


@dataclass(frozen=True)
class Payload:
    """One request.

    Attributes:
        body: an encoded image, an encoded array or JSON.
        content_type: type of the body.
        accept: requested type of the response.
        options: request options of the API, such as {"masks": "none"}.
    """

    body: bytes
    content_type: str = UNKNOWN_TYPE
    accept: str = JSON
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, image: ImageInput, accept: str = JSON, **options: Any) -> "Payload":
        """Build the request for one image.

        Raises:
            OSError: the file cannot be read.
            ValueError: the array contains Python objects.
        """
        if isinstance(image, Path):
            return cls(image.read_bytes(), content_type_of(image), accept, options)
        if isinstance(image, np.ndarray):
            file = io.BytesIO()
            np.save(file, image, allow_pickle=False)
            return cls(file.getvalue(), NPY, accept, options)
        return cls(image, UNKNOWN_TYPE, accept, options)

    @property
    def custom_attributes(self) -> str:
        """Value of SageMaker's custom attributes header; empty without options."""
        return json.dumps(self.options) if self.options else ""


@dataclass(frozen=True)
class Reply:
    """Body and type of a successful response."""

    content: bytes
    content_type: str = ""

    def json(self) -> Any:
        """Parse the body as JSON."""
        return json.loads(self.content)


class Transport(Protocol):
    """A connection to one server or endpoint."""

    def send(self, payload: Payload) -> Reply:
        """Send a request and return the response.

        Raises:
            PredictionError: the server returned an error, or the connection failed midway.
            UnreachableError: the server or endpoint does not exist.
        """
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


def error_from_body(
    status: int, body: str, phrase: str = "", *, is_transient: bool = False
) -> PredictionError:
    """Parse the API's error body, or quote the body of a gateway in front of the server.

    Args:
        status: HTTP status.
        body: the response's body.
        phrase: message to use when the body is empty.
        is_transient: whether the same request may succeed later.
    """
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    fields: dict[str, Any] = content if isinstance(content, dict) else {}
    error = fields.get("error")
    if isinstance(error, dict):
        fields = error
    code = fields.get("code") if fields is error else f"http_{status}"
    message = fields.get("message") or body.strip()[:MAX_QUOTED_CHARACTERS] or phrase
    hint = str(fields.get("hint") or "")
    return PredictionError(status, str(code), str(message), hint, is_transient=is_transient)
