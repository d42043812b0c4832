"""Read the YAML that `LazyConfig.save` writes as nested dicts."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from d2serve.building.yaml_config import ConfigError
from d2serve.serving.safe_yaml import MOST_VALUES, BoundedLoader, read_yaml_text

REFERENCE = re.compile(r"\$\{(\.*)([\w.]+)\}")
LONGEST_CHAIN = 20
KeyPath = tuple[str | int, ...]


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
    root: Any, node: Any, path: KeyPath, inside: frozenset[KeyPath], left: Iterator[int]
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
    root: Any, text: str, path: KeyPath, inside: frozenset[KeyPath], left: Iterator[int]
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


def _target(value: Any, path: KeyPath) -> KeyPath | None:
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


# Where a lazy config has its network; Detectron2's other configs have MODEL.
MODEL_KEY = "model"
TARGET_KEY = "_target_"
PYTHON = "tag:yaml.org,2002:python/"
NAME = "name:"
OBJECT = "object:"
PARTIAL = "object/apply:functools.partial"


class LazyLoader(BoundedLoader):
    """Plain YAML, and Python's objects as the names they go by."""


def _described(loader: LazyLoader, suffix: str, node: yaml.Node) -> Any:
    """A tuple is a list, a class or function its name, an object its attributes, a partial its
    keywords and its name as TARGET_KEY; of all else the tag alone is kept, as text."""
    match node:
        case yaml.SequenceNode() if suffix == "tuple":
            return loader.construct_sequence(node, deep=True)
        case yaml.ScalarNode() if suffix.startswith(NAME):
            return suffix.removeprefix(NAME)
        case yaml.MappingNode() if suffix.startswith(OBJECT):
            return loader.construct_mapping(node, deep=True)
        case yaml.MappingNode() if suffix == PARTIAL:
            return _partial(loader.construct_mapping(node, deep=True))
    return f"python/{suffix}"


def _partial(pickled: dict[Any, Any]) -> Any:
    """functools.partial's state is what it calls, arguments, keywords and attributes."""
    match pickled:
        case {"state": [str() as name, [], dict() as keywords, None]}:
            return {TARGET_KEY: name, **keywords}
    return f"python/{PARTIAL}"


LazyLoader.add_multi_constructor(PYTHON, _described)


def is_lazy_config(path: Path) -> bool:
    """Whether a YAML file has the shape of a lazy config; False where it cannot be read."""
    try:
        root = yaml.compose(read_yaml_text(path), BoundedLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(root, yaml.MappingNode) and any(
        key.value == MODEL_KEY for key, _ in root.value
    )


def read_lazy_config(path: Path) -> dict[str, Any]:
    """All that a lazy config holds, interpolations resolved.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        content = yaml.load(read_yaml_text(path), LazyLoader)  # noqa: S506, a safe loader
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path} is not YAML of a lazy config: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"config {path} must be a YAML mapping, not {type(content).__name__}")
    resolved: dict[str, Any] = resolve(content)
    return resolved
