"""Options from query string, custom attributes and JSON parameters -> one validated Options."""

import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from d2serve.errors import RequestError, bad_request
from d2serve.messages import (
    FORMATS,
    INPUT_COLORS,
    INPUT_LAYOUTS,
    INPUT_RANGES,
    MASKS,
    RESPONSE_TYPES,
    Options,
)
from d2serve.metadata import ModelFacts
from d2serve.settings import SettingsError

# What a hint lists at most: LVIS has 1,203 classes.
NAMES_SHOWN = 20


class OptionReader:
    """Reads requests' options for one model.

    Args:
        model: whose thresholds, counts and class names are valid.
        defaults: the archive's own defaults.

    Raises:
        SettingsError: a default is not valid for this model.
    """

    def __init__(self, model: ModelFacts, defaults: Mapping[str, Any]) -> None:
        self.model = model
        self._readers: dict[str, Callable[[Any], Any]] = {
            "response_type": _one_of("response_type", tuple(RESPONSE_TYPES)),
            "format": _one_of("format", FORMATS),
            "masks": _one_of("masks", MASKS),
            "score_threshold": self._score_threshold,
            "max_detections": self._max_detections,
            "classes": self._classes,
            "input_layout": _one_of("input_layout", INPUT_LAYOUTS),
            "input_color": _one_of("input_color", INPUT_COLORS),
            "input_range": _one_of("input_range", INPUT_RANGES),
        }
        self.defaults = Options(model.score_threshold, model.max_detections)
        try:
            self.defaults = self.read(defaults)
        except RequestError as error:
            raise SettingsError(f"handler setting: {error.message}; {error.hint}") from error

    def read(self, *sources: Mapping[str, Any]) -> Options:
        """The options of one request; a later source wins over an earlier one.

        Raises:
            RequestError: 400 for an option that does not exist or a value out of its range.
        """
        given = {name: value for source in sources for name, value in source.items()}
        return replace(self.defaults, **{name: self._read(name, given[name]) for name in given})

    def _read(self, name: str, value: Any) -> Any:
        reader = self._readers.get(name)
        if reader is None:
            [close, *_] = [*difflib.get_close_matches(name[:40], self._readers, 1), None]
            raise bad_request(
                "an option does not exist" + (f"; {close} does" if close else ""),
                f"there are {', '.join(self._readers)}",
            )
        return reader(value)

    def _score_threshold(self, value: Any) -> float:
        least = self.model.score_threshold
        number = _number(value)
        if number is None or not least <= number <= 1:
            raise bad_request(
                f"score_threshold must be a number from {least:g} to 1",
                f"the network itself drops what scores less than {least:g}",
            )
        return number

    def _max_detections(self, value: Any) -> int:
        most = self.model.max_detections
        number = _number(value)
        if number is None or number != int(number) or not 1 <= number <= most:
            raise bad_request(
                f"max_detections must be a whole number from 1 to {most}",
                f"the network itself gives at most {most}",
            )
        return int(number)

    def _classes(self, value: Any) -> frozenset[int]:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not items:
            raise bad_request(
                "classes must be a list of names or ids", 'such as "cat,dog", or ["cat", 3] in JSON'
            )
        return frozenset(self._class_index(item) for item in items)

    def _class_index(self, item: Any) -> int:
        names = self.model.class_names
        text = item.strip() if isinstance(item, str) else item
        if text in names:
            return names.index(text)
        number = _number(text)
        if number is None or number not in range(len(names)):
            shown = ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
            raise bad_request(
                "classes holds a class that the model does not know",
                f"ids run from 0 to {len(names) - 1}; names are {shown}",
            )
        return int(number)


def read_custom_attributes(text: str) -> dict[str, Any]:
    """A JSON object, or `key=value` pairs joined by `;` or `,`.

    A piece without `=` belongs to the value before it, so that `classes=cat,dog` is one option.

    Raises:
        RequestError: 400 for neither.
    """
    text = text.strip()
    return _json_attributes(text) if text.startswith("{") else _pairs(text)


def _json_attributes(text: str) -> dict[str, Any]:
    try:
        options: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad_attributes() from error
    return options


def _pairs(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    name = ""
    for piece in text.replace(";", ",").split(","):
        key, equals, value = (part.strip() for part in piece.partition("="))
        if equals:
            name = key
            options[name] = value
        elif key and name:
            options[name] += f",{key}"
        elif key:
            raise _bad_attributes()
    return options


def _bad_attributes() -> Exception:
    return bad_request(
        "the custom attributes are neither a JSON object nor key=value pairs",
        'such as masks=none;max_detections=5, or {"masks": "none"}',
    )


def _one_of(name: str, values: Sequence[str]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in values:
            raise bad_request(f"{name} has a value that does not exist", f"use {_or(values)}")
        return value

    return read


def _or(values: Sequence[str]) -> str:
    return f"{', '.join(values[:-1])} or {values[-1]}"


def _number(value: Any) -> float | None:
    """A finite number, also one that a query string spells; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
