"""Reads what Detectron2's `LazyConfig.save` writes, as plain nested dicts, and runs none of it."""

from pathlib import Path
from typing import Any

import yaml

from handler.bounded_yaml import BoundedLoader, read_yaml_text
from handler.rcnn.interpolation import resolve
from handler.rcnn.yaml_config import ConfigError

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
