"""Read the YAML that `LazyConfig.save` writes as nested dicts, interpolations resolved."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from d2serve.building.yaml_config import read_mapping
from d2serve.errors import ConfigError
from d2serve.serving.safe_yaml import MAX_VALUES, BoundedLoader, read_yaml_text

# The key of the network in a lazy config; keyed configs have MODEL.
MODEL_KEY = "model"
TARGET_KEY = "_target_"
PYTHON_TAG = "tag:yaml.org,2002:python/"
NAME = "name:"
OBJECT = "object:"
PARTIAL = "object/apply:functools.partial"
INTERPOLATION = re.compile(r"\$\{(\.*)([\w.]+)\}")
MAX_CHAIN = 20
KeyPath = tuple[str | int, ...]


class LazyLoader(BoundedLoader):
    """Plain YAML; Python objects become their names, without importing them."""


def is_lazy_config(path: Path) -> bool:
    """Return whether a YAML file has the shape of a lazy config; False if it cannot be read."""
    try:
        root = yaml.compose(read_yaml_text(path), BoundedLoader)
    except (OSError, UnicodeError, yaml.YAMLError):
        return False
    return isinstance(root, yaml.MappingNode) and any(
        key.value == MODEL_KEY for key, _ in root.value
    )


def read_lazy_config(path: Path) -> dict[str, Any]:
    """Read a lazy config with its interpolations resolved.

    Raises:
        ConfigError: the file cannot be read.
    """
    resolved: dict[str, Any] = resolve(read_mapping(path, LazyLoader, "YAML of a lazy config"))
    return resolved


def resolve(root: dict[str, Any]) -> Any:
    """Replace interpolations such as ${.width} by the values that they refer to.

    A string is kept if it refers to a missing value, to itself, to a node that contains it, or if
    it is more than a single path.

    Raises:
        ConfigError: the resolved config is too large or too deep.

    Examples:
        >>> resolve({"dim": 8, "head": {"conv_dim": "${..dim}"}})
        {'dim': 8, 'head': {'conv_dim': 8}}
    """
    try:
        return _resolve(root, root, (), frozenset(), iter(range(MAX_VALUES)))
    except RecursionError as error:
        raise ConfigError("the config's interpolations are nested too deep") from error


def _construct_python(loader: LazyLoader, suffix: str, node: yaml.Node) -> Any:
    """Construct plain data for a Python tag.

    A tuple becomes a list, a class or function its name, an object its attributes, a partial its
    keywords with its name as TARGET_KEY. All other tags become their own names.
    """
    match node:
        case yaml.SequenceNode() if suffix == "tuple":
            return loader.construct_sequence(node, deep=True)
        case yaml.ScalarNode() if suffix.startswith(NAME):
            return suffix.removeprefix(NAME)
        case yaml.MappingNode() if suffix.startswith(OBJECT):
            return loader.construct_mapping(node, deep=True)
        case yaml.MappingNode() if suffix == PARTIAL:
            return _construct_partial(loader.construct_mapping(node, deep=True))
    return f"python/{suffix}"


def _construct_partial(pickled: dict[Any, Any]) -> Any:
    """The state of functools.partial: function, arguments, keywords and attributes."""
    match pickled:
        case {"state": [str() as name, [], dict() as keywords, None]}:
            return {TARGET_KEY: name, **keywords}
    return f"python/{PARTIAL}"


LazyLoader.add_multi_constructor(PYTHON_TAG, _construct_python)


def _resolve(
    root: Any, node: Any, path: KeyPath, active: frozenset[KeyPath], budget: Iterator[int]
) -> Any:
    """Resolve a node.

    Args:
        root: the whole config.
        node: the node at `path`.
        path: its keys and indices.
        active: paths of the values that are being inserted.
        budget: limits the number of resolved values.
    """
    if next(budget, None) is None:
        raise ConfigError(f"the config has more than {MAX_VALUES} values, interpolations resolved")
    match node:
        case dict():
            return {
                key: _resolve(root, value, (*path, key), active, budget)
                for key, value in node.items()
            }
        case list():
            return [
                _resolve(root, value, (*path, index), active, budget)
                for index, value in enumerate(node)
            ]
        case str():
            return _follow(root, node, path, active, budget)
    return node


def _follow(
    root: Any, text: str, path: KeyPath, active: frozenset[KeyPath], budget: Iterator[int]
) -> Any:
    value: Any = text
    for _ in range(MAX_CHAIN):
        target = _target(value, path)
        if target is None:
            return value if isinstance(value, str) else _resolve(root, value, path, active, budget)
        if target in active or target == path[: len(target)]:
            return text
        try:
            value, path = _lookup(root, target), target
        except (KeyError, IndexError, TypeError, ValueError):
            return text
        active = active | {target}
    return text


def _target(value: Any, path: KeyPath) -> KeyPath | None:
    match = INTERPOLATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    dots, name = match.groups()
    # One dot is the mapping that contains the string.
    parent = path[: max(0, len(path) - len(dots))] if dots else ()
    return (*parent, *name.split("."))


def _lookup(root: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        root = root[int(step)] if isinstance(root, list) else root[step]
    return root
