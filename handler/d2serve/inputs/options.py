"""Options from query string, custom attributes and JSON parameters -> one validated Options."""

import difflib
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from d2serve.errors import RequestError, SettingsError, bad_request
from d2serve.messages import (
    DENSEPOSE,
    FORMATS,
    INPUT_COLORS,
    INPUT_LAYOUTS,
    INPUT_RANGES,
    MASKS,
    OPTION_NAMES,
    RESPONSE_TYPES,
    Options,
)
from d2serve.metadata import ModelMetadata

# Maximum number of class names in a hint: LVIS has 1,203 classes.
NAMES_SHOWN = 20
# Longer names are cut before they are compared with the known ones.
MAX_NAME_LENGTH = 40
# Longer class names are compared as they are: composing takes quadratic time.
MAX_COMPOSED_LENGTH = 1000
# Names start with a letter, so that URLs and most trace ids are not pairs.
PAIR = re.compile(r"([A-Za-z_][\w.-]*)\s*=\s*(.*)", re.ASCII | re.DOTALL)
# The option whose value is a list.
LIST_OPTION = "classes"
# SageMaker JumpStart's clients send them to every endpoint.
IGNORED_ATTRIBUTES = ("accept_eula",)


class OptionReader:
    """Reads and validates request options for one model.

    Args:
        model: provides the valid thresholds, counts and class names.
        defaults: the archive's own defaults.

    Raises:
        SettingsError: a default is not valid for this model.

    Examples:
        >>> reader = OptionReader(ModelMetadata("pets", ("cat", "dog"), 0.05, 100), {})
        >>> options = reader.read({"classes": "dog", "max_detections": "5"})
        >>> options.classes, options.max_detections, options.score_threshold
        (frozenset({1}), 5, 0.05)
    """

    def __init__(self, model: ModelMetadata, defaults: Mapping[str, Any]) -> None:
        self.model = model
        self._composed_names = [_composed(name) for name in model.class_names]
        self._readers: dict[str, Callable[[Any], Any]] = {
            "response_type": _one_of("response_type", tuple(RESPONSE_TYPES)),
            "format": _one_of("format", FORMATS),
            "masks": _one_of("masks", MASKS),
            "densepose": _one_of("densepose", DENSEPOSE),
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
        """Merge and validate the options of one request; a later source wins over an earlier one.

        Raises:
            RequestError: 400 for an unknown option or an invalid value.
        """
        given = {name: value for source in sources for name, value in source.items()}
        return replace(self.defaults, **{name: self._read(name, given[name]) for name in given})

    def _read(self, name: str, value: Any) -> Any:
        reader = self._readers.get(name)
        if reader is None:
            similar = difflib.get_close_matches(name[:MAX_NAME_LENGTH], self._readers, 1)
            raise bad_request(
                "unknown option" + (f"; did you mean {similar[0]}?" if similar else ""),
                f"the options are {', '.join(self._readers)}",
            )
        return reader(value)

    def _score_threshold(self, value: Any) -> float:
        least = self.model.score_threshold
        number = _number(value)
        if number is None or not least <= number <= 1:
            raise bad_request(
                f"score_threshold must be a number from {least:g} to 1",
                f"the network itself drops detections with a score below {least:g}",
            )
        return number

    def _max_detections(self, value: Any) -> int:
        most = self.model.max_detections
        number = _number(value)
        if number is None or number != int(number) or not 1 <= number <= most:
            raise bad_request(
                f"max_detections must be an integer from 1 to {most}",
                f"the network itself returns at most {most} detections per image",
            )
        return int(number)

    def _classes(self, value: Any) -> frozenset[int]:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not items:
            raise bad_request(
                "classes must be a list of names or ids",
                'send a list such as "cat,dog", or ["cat", 3] in JSON',
            )
        return frozenset(self._class_index(item) for item in items)

    def _class_index(self, item: Any) -> int:
        names = self.model.class_names
        text = item.strip() if isinstance(item, str) else item
        if text in names:
            return names.index(text)
        if isinstance(text, str) and (composed := _composed(text)) in self._composed_names:
            return self._composed_names.index(composed)
        number = _number(text)
        if number is None or number not in range(len(names)):
            shown = ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
            raise bad_request(
                "classes contains a class that the model does not have",
                f"use ids from 0 to {len(names) - 1}, or the names {shown}",
            )
        return int(number)


def merged(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The options in pairs of a name and a value, as query strings and forms have them.

    Of a repeated name the last value counts, except `classes`, whose values form a list.

    Examples:
        >>> merged([("classes", "cat"), ("masks", "rle"), ("classes", "dog"), ("masks", "none")])
        {'classes': 'cat,dog', 'masks': 'none'}
    """
    options: dict[str, str] = {}
    for name, value in pairs:
        is_further = name == LIST_OPTION and name in options
        options[name] = f"{options[name]},{value}" if is_further else value
    return options


def read_custom_attributes(text: str) -> dict[str, Any]:
    """Parse the custom attributes: a JSON object, or `key=value` pairs joined by `;` or `,`.

    SageMaker passes any text on, so text that is neither, such as a trace id, is ignored, and so is
    JumpStart's `accept_eula`. After `classes=`, a piece without `=` is a further class.

    Raises:
        RequestError: 400, the text starts like a JSON object but is not valid JSON.

    Examples:
        >>> read_custom_attributes("masks=none;classes=cat,dog")
        {'masks': 'none', 'classes': 'cat,dog'}
        >>> read_custom_attributes("1c32b7a4-6d67-4a4c-8f2b-3f4c2bd8a1aa")
        {}
    """
    text = _decoded(text).strip()
    options = _json_object(text) if text.startswith("{") else _pairs(text)
    return {name: value for name, value in options.items() if name not in IGNORED_ATTRIBUTES}


def _decoded(header: str) -> str:
    """The text of a header that the client sent in UTF-8; servers decode headers as Latin-1."""
    try:
        return header.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return header


def _composed(name: str) -> str:
    """The name in the composed form of Unicode; file systems and keyboards also use another one."""
    return unicodedata.normalize("NFC", name) if len(name) <= MAX_COMPOSED_LENGTH else name


def _json_object(text: str) -> dict[str, Any]:
    try:
        options: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise bad_request(
            "the custom attributes start with {, but are not a JSON object",
            'send them as in {"masks": "none"}, or as in masks=none;max_detections=5',
        ) from error
    return options


def _pairs(text: str) -> dict[str, Any]:
    pairs: list[tuple[str, str]] = []
    name = ""
    for piece in (piece.strip() for piece in text.replace(";", ",").split(",")):
        if (pair := PAIR.fullmatch(piece)) and not _is_padded(pair):
            name = pair[1]
            pairs.append((name, pair[2]))
        elif name == LIST_OPTION and piece:
            pairs.append((name, piece))
    return merged(pairs)


def _is_padded(pair: re.Match[str]) -> bool:
    """Return whether the match is base64 with its padding rather than an option and its value."""
    return not pair[2].strip("=") and pair[1] not in OPTION_NAMES


def _one_of(name: str, values: Sequence[str]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in values:
            raise bad_request(
                f"{name} has an unknown value", f"use {', '.join(values[:-1])} or {values[-1]}"
            )
        return value

    return read


def _number(value: Any) -> float | None:
    """A finite number, also as the text of a query string; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and "_" in value:  # Python's separator of digits
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
