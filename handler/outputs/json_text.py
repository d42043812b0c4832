"""Compact JSON."""

import json
from typing import Any


def json_text(content: Any) -> str:
    """Without spaces, and with letters as they are.

    Raises:
        ValueError: a number is not finite, which JSON cannot say.
    """
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def json_bytes(content: Any) -> bytes:
    r"""The same in UTF-8; half of a surrogate pair, which UTF-8 lacks, as JSON's \uXXXX."""
    return json_text(content).encode("utf-8", "backslashreplace")
