"""OmegaConf's references within a config: `${a.b}` from the top, `${.a}` beside, `${..a}` above."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from handler.bounded_yaml import MOST_VALUES
from handler.rcnn.yaml_config import ConfigError

REFERENCE = re.compile(r"\$\{(\.*)([\w.]+)\}")
LONGEST_CHAIN = 20

Path = tuple[str | int, ...]


def resolve(root: dict[str, Any]) -> Any:
    """The config with what its texts refer to in their place.

    A text stays as it is where it refers to nothing, to itself, to what holds it, or to anything
    that takes more than a path.

    Raises:
        ConfigError: with all references followed there is too much of it, or it is too deep.
    """
    try:
        return _resolved(root, root, (), frozenset(), iter(range(MOST_VALUES)))
    except RecursionError as error:
        raise ConfigError("the config's references lead too deep") from error


def _resolved(
    root: Any, node: Any, path: Path, inside: frozenset[Path], left: Iterator[int]
) -> Any:
    """`inside` are the places whose content is being put elsewhere; `left` counts the values."""
    if next(left, None) is None:
        raise ConfigError(f"the config has more than {MOST_VALUES} values, references followed")
    match node:
        case dict():
            return {
                k: _resolved(root, value, (*path, k), inside, left) for k, value in node.items()
            }
        case list():
            return [
                _resolved(root, value, (*path, i), inside, left) for i, value in enumerate(node)
            ]
        case str():
            return _followed(root, node, path, inside, left)
    return node


def _followed(
    root: Any, text: str, path: Path, inside: frozenset[Path], left: Iterator[int]
) -> Any:
    value: Any = text
    for _ in range(LONGEST_CHAIN):
        target = _target(value, path)
        if target is None:
            return value if isinstance(value, str) else _resolved(root, value, path, inside, left)
        if target in inside or target == path[: len(target)]:
            return text
        try:
            value, path = _at(root, target), target
        except (KeyError, IndexError, TypeError, ValueError):
            return text
        inside = inside | {target}
    return text


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
