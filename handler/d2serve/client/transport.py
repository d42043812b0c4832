"""Requests, replies and errors shared by all transports."""

import asyncio
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from PIL import Image

from d2serve.client.images import UNKNOWN_TYPE, content_type_of
from d2serve.errors import PredictionError

JSON = "application/json"
NPY = "application/x-npy"
MAX_QUOTED_CHARACTERS = 200
# The path of a file, its content, an array as docs/api.md describes, such as UInt8[H, W, 3] RGB, or
# a PIL image.
ImageInput: TypeAlias = str | os.PathLike[str] | bytes | np.ndarray[Any, Any] | Image.Image
# Modes that PNG stores without loss; TIFF stores all.
PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
# Modes that neither stores as they are.
CONVERTED_MODES = {"HSV": "RGB", "RGBa": "RGBA", "YCbCr": "RGB"}


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
            TypeError: the image is of another type.
        """
        if isinstance(image, Image.Image):
            return cls(*_encoded(image), accept, options)
        if isinstance(image, str | os.PathLike):
            image = Path(image)
            return cls(image.read_bytes(), content_type_of(image), accept, options)
        if isinstance(image, np.ndarray):
            file = io.BytesIO()
            np.save(file, image, allow_pickle=False)
            return cls(file.getvalue(), NPY, accept, options)
        if isinstance(image, bytes | bytearray | memoryview):
            return cls(bytes(image), UNKNOWN_TYPE, accept, options)
        raise TypeError(
            f"the image is {type(image).__name__}; expected a path, bytes, a numpy array or a PIL "
            "image"
        )

    @property
    def custom_attributes(self) -> str:
        """Value of SageMaker's custom attributes header; empty without options."""
        return json.dumps(self.options) if self.options else ""


def _encoded(image: Image.Image) -> tuple[bytes, str]:
    """Encode an image without loss; the server applies its EXIF orientation."""
    exif = image.getexif()
    if mode := CONVERTED_MODES.get(image.mode):
        image = image.convert(mode)
    name, more = ("PNG", {"compress_level": 1}) if image.mode in PNG_MODES else ("TIFF", {})
    file = io.BytesIO()
    image.save(file, name, exif=exif, **more)
    return file.getvalue(), f"image/{name.lower()}"


@dataclass(frozen=True)
class Reply:
    """Body, type and `Server-Timing` of a successful response."""

    content: bytes
    content_type: str = ""
    server_timing: str = ""

    def json(self) -> Any:
        """Parse the body as JSON.

        Raises:
            PredictionError: it is not JSON.
        """
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            raise self.not_a_prediction() from None

    def not_a_prediction(self) -> PredictionError:
        """The error of a response of another route or another server."""
        text = self.content[:MAX_QUOTED_CHARACTERS].decode(errors="replace")
        return PredictionError(
            0,
            "no_prediction",
            f"the response is not a prediction: {text!r}",
            "use the URL of a d2serve server, or that of a route such as /predictions/NAME",
        )


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


class AsyncTransport(Protocol):
    """A `Transport` for coroutines."""

    async def send(self, payload: Payload) -> Reply:
        """Send a request and return the response; raises as `Transport.send` does."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class ThreadTransport:
    """Runs the calls of a `Transport` in threads.

    Args:
        transport: the transport; its calls may run at the same time.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def send(self, payload: Payload) -> Reply:
        """Send a request; see Transport."""
        return await asyncio.to_thread(self._transport.send, payload)

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.to_thread(self._transport.close)


def error_from_body(
    status: int,
    body: str,
    phrase: str = "",
    *,
    is_transient: bool = False,
    retry_after_s: float = 0.0,
) -> PredictionError:
    """Parse the API's error body, or quote the body of a gateway in front of the server.

    Args:
        status: HTTP status.
        body: the response's body.
        phrase: message to use when the body is empty.
        is_transient: whether the same request may succeed later.
        retry_after_s: seconds that the server demands until the next attempt.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    fields: dict[str, Any] = content if isinstance(content, dict) else {}
    error = fields.get("error")
    if isinstance(error, dict):
        fields = error
    code = (fields.get("code") if fields is error else None) or f"http_{status}"
    message = fields.get("message") or body.strip()[:MAX_QUOTED_CHARACTERS] or phrase
    hint = str(fields.get("hint") or "")
    return PredictionError(
        status,
        str(code),
        str(message),
        hint,
        is_transient=is_transient,
        retry_after_s=retry_after_s,
    )
