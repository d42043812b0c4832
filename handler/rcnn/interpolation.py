"""OmegaConf's references within a config: `${a.b}` from the top, `${.a}` beside, `${..a}` above."""

import re
from collections.abc import Sequence
from typing import Any

REFERENCE = re.compile(r"\$\{(\.*)([\w.]+)\}")
LONGEST_CHAIN = 20

Path = tuple[str | int, ...]


def resolve(root: dict[str, Any]) -> Any:
    """The config with what its texts refer to in their place.

    A text stays as it is where it refers to nothing, to itself, to what holds it, or to anything
    that takes more than a path.
    """
    return _resolved(root, root, ())


def _resolved(root: Any, node: Any, path: Path) -> Any:
    match node:
        case dict():
            return {key: _resolved(root, value, (*path, key)) for key, value in node.items()}
        case list():
            return [_resolved(root, value, (*path, index)) for index, value in enumerate(node)]
        case str():
            return _followed(root, node, path)
    return node


def _followed(root: Any, text: str, path: Path) -> Any:
    value: Any = text
    for _ in range(LONGEST_CHAIN):
        target = _target(value, path)
        if target is None or target == path[: len(target)]:
            break
        try:
            value, path = _at(root, target), target
        except (KeyError, IndexError, TypeError, ValueError):
            return text
    else:
        return text
    return value if isinstance(value, str) else _resolved(root, value, path)


def _target(value: Any, path: Path) -> Path | None:
    match = REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    dots, name = match.groups()
    # One dot is the mapping that holds the text.
    above = path[: max(0, len(path) - len(dots))] if dots else ()
    return (*above, *name.split("."))


def _at(root: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        root = root[int(step)] if isinstance(root, list) else root[step]
    return root
