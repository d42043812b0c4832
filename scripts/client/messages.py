"""What goes to a server and what comes back, whichever way it takes."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from scripts.pictures import ANY_BYTES, content_type_of

JSON = "application/json"
NPY = "application/x-npy"
# A picture file, the bytes of one, or UInt8[H, W, 3] RGB and what else the API takes as an array.
Picture: TypeAlias = "Path | bytes | np.ndarray[Any, Any]"


@dataclass(frozen=True)
class Payload:
    """One request.

    Attributes:
        body: a picture, an array or JSON, encoded.
        content_type: what the body is.
        accept: the type that is asked for.
        options: of the API's section on options, such as {"masks": "none"}.
    """

    body: bytes
    content_type: str = ANY_BYTES
    accept: str = JSON
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, picture: Picture, accept: str = JSON, **options: Any) -> "Payload":
        """A picture as the API takes it.

        Raises:
            OSError: the file cannot be read.
        """
        if isinstance(picture, Path):
            return cls(picture.read_bytes(), content_type_of(picture), accept, options)
        if isinstance(picture, np.ndarray):
            file = io.BytesIO()
            np.save(file, picture, allow_pickle=False)
            return cls(file.getvalue(), NPY, accept, options)
        return cls(picture, ANY_BYTES, accept, options)

    @property
    def custom_attributes(self) -> str:
        """The options as SageMaker's custom attributes carry them; empty if there are none."""
        return json.dumps(self.options) if self.options else ""


@dataclass(frozen=True)
class Reply:
    """A server's answer to a request that it took."""

    content: bytes
    content_type: str = ""

    def json(self) -> Any:
        """The body's JSON."""
        return json.loads(self.content)


class Transport(Protocol):
    """One way to a server."""

    def send(self, payload: Payload) -> Reply:
        """Returns the answer.

        Raises:
            PredictionError: the server refused the request, or broke off.
            UnreachableError: there is no server.
        """
        ...

    def close(self) -> None:
        """Gives its connections back."""
        ...
