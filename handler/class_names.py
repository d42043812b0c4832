"""The model's class names."""

import json
from pathlib import Path

CLASSES_FILE = "classes.json"


class ClassNamesError(ValueError):
    """A class file that cannot be read or does not fit the model."""


def read_class_names(path: Path, count: int) -> list[str]:
    """Reads a JSON list of names in the order of the class indices.

    Raises:
        ClassNamesError: the file is not such a list, or does not hold `count` names.
    """
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClassNamesError(f"class names {path.name} cannot be read: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ClassNamesError(f'{path.name} must be a JSON list of names, e.g. ["cat", "dog"]')
    if len(names) != count:
        raise ClassNamesError(
            f"{path.name} holds {len(names)} names, but the config's "
            f"MODEL.ROI_HEADS.NUM_CLASSES is {count}"
        )
    return names


def placeholder_names(count: int) -> list[str]:
    """class_0, class_1, ... for a model whose names nobody gave."""
    return [f"class_{index}" for index in range(count)]
