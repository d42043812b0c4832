"""Model metadata that clients may see: class names, thresholds and limits."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d2serve.errors import ClassNamesError
from d2serve.text_files import decode_text

CLASSES_FILE = "classes.json"
EXPECTED = 'a list of names, ["cat", "dog"], or {"things": [names], "stuff": [names]}'


@dataclass(frozen=True)
class Labels:
    """Texts that overlays show for class names with characters beyond ASCII.

    Attributes:
        texts: the text by class name.
        font: a TrueType file that draws the texts; None if they are all ASCII.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    font: bytes | None = None


@dataclass(frozen=True)
class ModelMetadata:
    """The served model as requests and responses refer to it.

    Attributes:
        name: the server's name of the model.
        class_names: in the order of the class indices.
        score_threshold: the network's own minimum score, 0..1.
        max_detections: the network's maximum number of detections per image.
        stuff_names: names of the classes of `Detections.semantic`, in the order of their indices.
        labels: of the class names in overlays.
        channels: of the network's input: 1 (grey), 3 or 4.
    """

    name: str
    class_names: tuple[str, ...]
    score_threshold: float
    max_detections: int
    stuff_names: tuple[str, ...] = ()
    labels: Labels = field(default_factory=Labels)
    channels: int = 3


@dataclass(frozen=True)
class ClassNames:
    """Class names in the order of the class indices.

    Attributes:
        things: the classes of instances.
        stuff: the classes of `Detections.semantic`.
    """

    things: tuple[str, ...] = ()
    stuff: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassCounts:
    """The number of classes of a model.

    Attributes:
        things: the number of instance classes.
        stuff: the number of pixel classes.
        things_key: the key of Detectron2's config that sets `things`.
        stuff_key: the key that sets `stuff`.
    """

    things: int
    stuff: int = 0
    things_key: str = "MODEL.ROI_HEADS.NUM_CLASSES"
    stuff_key: str = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"


def read_class_names(path: Path) -> ClassNames:
    """Read a JSON list of thing names, or an object of `things` and `stuff`.

    Raises:
        ClassNamesError: the file is missing or has another content.
    """
    try:
        text = decode_text(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ClassNamesError(f"class names {path.name} cannot be read: {error}") from error
    return parse_class_names(text, path.name)


def parse_class_names(text: str | bytes, source: str) -> ClassNames:
    """Parse the text of the class file `source`.

    Raises:
        ClassNamesError: see `read_class_names`.

    Examples:
        >>> parse_class_names('["cat", "dog"]', "classes.json")
        ClassNames(things=('cat', 'dog'), stuff=())
        >>> parse_class_names('{"cats": ["tom"]}', "classes.json")
        Traceback (most recent call last):
            ...
        d2serve.errors.ClassNamesError: classes.json has the unknown key 'cats'; \
expected a list of names, ["cat", "dog"], or {"things": [names], "stuff": [names]}
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ClassNamesError(f"class names {source} cannot be read: {error}") from error
    named = {"things": content} if isinstance(content, list) else content
    if not isinstance(named, dict):
        raise ClassNamesError(f"{source} is neither a list nor an object; expected {EXPECTED}")
    unknown = [str(kind) for kind in named if kind not in ("things", "stuff")]
    if unknown:
        raise ClassNamesError(f"{source} has the unknown key {unknown[0]!r}; expected {EXPECTED}")
    if not named:
        raise ClassNamesError(f"{source} is an empty object; expected {EXPECTED}")
    return ClassNames(**{kind: _names(names, kind, source) for kind, names in named.items()})


def check_class_names(names: ClassNames, counts: ClassCounts, source: str) -> None:
    """Check that the number of names matches the number of classes.

    Raises:
        ClassNamesError: there are too many or too few names.
    """
    _check(len(names.things), counts.things, "things", counts.things_key, source)
    _check(len(names.stuff), counts.stuff, "stuff", counts.stuff_key, source)


def class_names_text(names: ClassNames) -> str:
    """The text of a class file; a plain list if all classes are things."""
    if not names.stuff:
        return json.dumps(names.things)
    both = {"things": names.things, "stuff": names.stuff}
    return json.dumps({kind: listed for kind, listed in both.items() if listed})


def _names(names: Any, kind: str, source: str) -> tuple[str, ...]:
    if not isinstance(names, list) or not names:
        raise ClassNamesError(
            f"{source}: `{kind}` is not a list with at least one name; expected {EXPECTED}"
        )
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise ClassNamesError(
                f"{source}: `{kind}[{index}]` is {name!r}; expected a string with the class name"
            )
    return tuple(names)


def _check(named: int, needed: int, kind: str, key: str, source: str) -> None:
    if named != needed:
        reason = (
            f"the config's {key} is {needed}"
            if needed
            else f"the model has no {kind.removesuffix('s')} classes"
        )
        raise ClassNamesError(
            f"{source}: `{kind}` has length {named}, but {reason}; list one name per class"
        )
