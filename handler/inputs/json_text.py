"""JSON text -> Python values, within limits that are checked before it is parsed."""

import json
from typing import Any

import numpy as np

from handler.errors import bad_request, too_large
from handler.settings import Settings

NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
OPENING, CLOSING = np.frombuffer(b"[{", np.uint8), np.frombuffer(b"]}", np.uint8)


def parse_json(text: bytes, settings: Settings) -> Any:
    """Parses one JSON document.

    Raises:
        RequestError: 413 more values than the settings allow, 400 lists and objects that lie too
            deep in each other, or no JSON.
    """
    _require_few_values(text, settings.max_json_values)
    _require_shallow(text, settings.max_json_nesting)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise bad_request("the JSON is broken", "send valid JSON in UTF-8") from error


def _require_few_values(text: bytes, limit: int) -> None:
    # Each value but the first of its list or object comes after a comma.
    count = sum(text.count(mark) for mark in (b",", b"[", b"{"))
    if count > limit:
        raise too_large(
            f"the JSON holds about {count} values; at most {limit} are accepted",
            "send arrays as NPY, or raise max_json_values in the archive's model-config.yaml",
        )


def _require_shallow(text: bytes, limit: int) -> None:
    """Brackets within strings count too: they are hardly ever there, and never needed so deep."""
    brackets = np.frombuffer(text.translate(None, NOT_BRACKETS), np.uint8)
    steps = np.isin(brackets, OPENING).astype(np.int8) - np.isin(brackets, CLOSING)
    if np.cumsum(steps, dtype=np.int64).max(initial=0) > limit:
        raise bad_request(
            f"the JSON's lists lie more than {limit} deep in each other",
            "send H x W, H x W x C or N x H x W x C lists",
        )
