"""Model metadata that clients may see: class names, thresholds and limits."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLASSES_FILE = "classes.json"
SHAPES = 'a list of names, ["cat", "dog"], or {"things": [names], "stuff": [names]}'


class ClassNamesError(ValueError):
    """A class file that cannot be read or does not fit the model."""


@dataclass(frozen=True)
class ClassNames:
    """In the order of the class indices.

    Attributes:
        things: the classes of instances.
        stuff: the classes of `Detections.semantic`.
    """

    things: tuple[str, ...] = ()
    stuff: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassCounts:
    """How many classes a model tells apart.

    Attributes:
        things: the classes of instances.
        stuff: the classes of pixels.
        things_key: the key of Detectron2's config that says how many things.
        stuff_key: the key that says how much stuff.
    """

    things: int
    stuff: int = 0
    things_key: str = "MODEL.ROI_HEADS.NUM_CLASSES"
    stuff_key: str = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"


def read_class_names(path: Path) -> ClassNames:
    """Reads a JSON list of things, or an object of things and stuff.

    Raises:
        ClassNamesError: the file is missing or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ClassNamesError(f"class names {path.name} cannot be read: {error}") from error
    return parse_class_names(text, path.name)


def parse_class_names(text: str | bytes, source: str) -> ClassNames:
    """Reads the text of a class file that is called `source`.

    Raises:
        ClassNamesError: see `read_class_names`.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ClassNamesError(f"class names {source} cannot be read: {error}") from error
    named = {"things": content} if isinstance(content, list) else content
    if not isinstance(named, dict):
        raise ClassNamesError(f"{source} holds a {type(content).__name__}; it must be {SHAPES}")
    unknown = [str(kind) for kind in named if kind not in ("things", "stuff")]
    if unknown or not named:
        has = f"the key {unknown[0]!r}" if unknown else "no key"
        raise ClassNamesError(f"{source} has {has}; it must be {SHAPES}")
    return ClassNames(**{kind: _names(names, kind, source) for kind, names in named.items()})


def check_class_names(names: ClassNames, counts: ClassCounts, source: str) -> None:
    """Passes names that are as many as the model's classes.

    Raises:
        ClassNamesError: they are more or fewer.
    """
    _check(len(names.things), counts.things, "things", counts.things_key, source)
    _check(len(names.stuff), counts.stuff, "stuff", counts.stuff_key, source)


def class_names_text(names: ClassNames) -> str:
    """The text of a class file: a list where all are things."""
    if not names.stuff:
        return json.dumps(names.things)
    both = {"things": names.things, "stuff": names.stuff}
    return json.dumps({kind: listed for kind, listed in both.items() if listed})


def _names(names: Any, kind: str, source: str) -> tuple[str, ...]:
    if not isinstance(names, list) or not names:
        raise ClassNamesError(f"{source}: {kind} is no list with names; the file must be {SHAPES}")
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise ClassNamesError(f"{source}: name {index} of {kind} is {name!r}, not a text")
    return tuple(names)


def _check(named: int, needed: int, kind: str, key: str, source: str) -> None:
    if named != needed:
        told = f"the config's {key} is {needed}" if needed else f"the model has no {kind}"
        raise ClassNamesError(f"{source} holds {named} names of {kind}, but {told}")


@dataclass(frozen=True)
class ModelFacts:
    """The served model, as requests and responses speak of it.

    Attributes:
        name: what the server calls the model.
        class_names: in the order of the class indices.
        score_threshold: the least score that the network lets through, 0..1.
        max_detections: how many detections of one picture the network gives at most.
        stuff_names: of the classes of `Detections.semantic`, in the order of their indices.
    """

    name: str
    class_names: tuple[str, ...]
    score_threshold: float
    max_detections: int
    stuff_names: tuple[str, ...] = ()
