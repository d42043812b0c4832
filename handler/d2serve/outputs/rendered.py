"""The body of a response together with the headers that describe it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rendered:
    """An encoded response.

    Attributes:
        body: the content.
        media_type: its Content-Type.
        headers: further header fields that describe the body.
    """

    body: bytes
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
