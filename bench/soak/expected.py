"""What each request is to be answered with."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from bench.load.requests import MARK
from bench.soak.found import Found, Size, Tolerance, difference

# Labels tell scores in whole percent, so floating-point noise may change a digit of one.
LEAST_SAME_PIXELS = 0.995
LARGEST_SAME = 8

Read = Callable[[bytes, Size], Found]


class Expected(Protocol):
    """The right answer, or one of them."""

    @property
    def status(self) -> int:
        """HTTP's."""

    def fault(self, body: bytes) -> str:
        """What is wrong with a body of that status; "" if nothing is."""


@dataclass(frozen=True)
class Detected:
    """An answer in which these instances are found.

    Attributes:
        read: takes the form of the answer apart.
        size_wh: of the picture, in pixels.
        found: in the picture.
        tolerance: how far from that it may be.
    """

    read: Read
    size_wh: Size
    found: Found
    tolerance: Tolerance
    status: int = HTTPStatus.OK

    def fault(self, body: bytes) -> str:
        """See `Expected`."""
        try:
            found = self.read(body, self.size_wh)
        except (ValueError, KeyError, TypeError, EOFError) as error:
            return f"unreadable: {type(error).__name__}: {error}"
        return difference(self.found, found, self.tolerance)


@dataclass(frozen=True)
class Marked:
    """An answer that has the request's own `id`."""

    inner: Expected

    @property
    def status(self) -> int:
        """As without an id."""
        return self.inner.status

    def fault(self, body: bytes) -> str:
        """See `Expected`."""
        own = _object(body).get("id") == MARK.decode()
        return self.inner.fault(body) if own else "the answer to another request"


@dataclass(frozen=True)
class Drawn:
    """A picture with what was found in it, as drawn before."""

    body: bytes
    status: int = HTTPStatus.OK

    def fault(self, body: bytes) -> str:
        """See `Expected`."""
        if body == self.body:
            return ""
        try:
            expected, drawn = _pixels(self.body), _pixels(body)
        except OSError as error:
            return f"no picture: {error}"
        if drawn.shape != expected.shape:
            return f"a picture of {drawn.shape} in place of {expected.shape}"
        near = np.abs(drawn.astype(int) - expected.astype(int)).max(axis=2) <= LARGEST_SAME
        same = float(near.mean())
        return "" if same >= LEAST_SAME_PIXELS else f"{1 - same:.1%} of the pixels differ"


@dataclass(frozen=True)
class Refused:
    """An error in the contract's form."""

    status: int
    code: str

    def fault(self, body: bytes) -> str:
        """See `Expected`."""
        code = error_code(body)
        return "" if code == self.code else f"the error {code!r} in place of {self.code!r}"


@dataclass(frozen=True)
class Unread:
    """An error in the server's own words: the front door passes on what it cannot read."""

    status: int

    def fault(self, _: bytes) -> str:
        """See `Expected`; the status is all that is known."""
        return ""


def error_code(body: bytes) -> str:
    """Of an error in the contract's form; "" if it is none."""
    error = _object(body).get("error")
    if not isinstance(error, dict) or sorted(error) != ["code", "hint", "message"]:
        return ""
    said = all(isinstance(text, str) and text for text in error.values())
    return str(error["code"]) if said else ""


def _pixels(body: bytes) -> npt.NDArray[np.uint8]:
    """UInt8[H, W, 3] RGB."""
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
