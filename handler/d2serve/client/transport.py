"""Requests, replies and errors of all transports."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from d2serve.errors import CommandError

CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".npy": "application/x-npy",
}
ANY_BYTES = "application/octet-stream"
OVERLAY_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}


def find_pictures(path: Path) -> list[Path]:
    """Return the file itself, or every picture in the folder and below it, in order."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise CommandError(f"{path} does not exist; name a picture or a folder of pictures")
    files = (file for file in path.rglob("*") if file.is_file())
    pictures = sorted(file for file in files if file.suffix.lower() in CONTENT_TYPES)
    if not pictures:
        raise CommandError(f"{path} holds no picture; looked for *{', *'.join(CONTENT_TYPES)}")
    return pictures


def content_type_of(picture: Path) -> str:
    """What to declare a file as; the server looks at the bytes of what we do not know."""
    return CONTENT_TYPES.get(picture.suffix.lower(), ANY_BYTES)


def overlay_type_of(picture: Path) -> str:
    """The type to ask an overlay in: the picture's own where the server can write it."""
    return OVERLAY_TYPES.get(picture.suffix.lower(), "image/jpeg")


def overlay_path(picture: Path, source: Path, folder: Path) -> Path:
    """Where the overlay of a picture found under `source` goes: its place and name in `folder`."""
    place = picture.relative_to(source) if source.is_dir() else Path(picture.name)
    known = picture.suffix.lower() in OVERLAY_TYPES
    return folder / (place if known else place.with_name(place.name + ".jpg"))


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
