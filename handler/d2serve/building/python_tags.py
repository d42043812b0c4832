"""Read the Python tags of YAML configs as data, without importing or calling anything."""

from dataclasses import dataclass
from typing import Any

import yaml

from d2serve.building.arithmetic import evaluate
from d2serve.serving.safe_yaml import BoundedLoader

PYTHON_TAG = "tag:yaml.org,2002:python/"
EVAL = "object/apply:eval"
ORDERED_DICT = "object/apply:collections.OrderedDict"
NEW = "object/new:"
# The parts of a pickled object that holds its content elsewhere than in arguments.
CONTENT_KEYS = {"dictitems", "listitems", "state"}
PLAIN_TAGS = {
    "str": "str",
    "unicode": "str",
    "int": "int",
    "long": "int",
    "float": "float",
    "bool": "bool",
    "none": "null",
    "list": "seq",
    "dict": "map",
}
# Longer values are shortened in messages.
MAX_SHOWN = 80


@dataclass(frozen=True)
class Opaque:
    """A value of a Python tag that stands for code, which is not run.

    Attributes:
        text: the tag and its value, such as `!!python/object/apply:eval ['range(5, 21)']`.
    """

    text: str

    def __repr__(self) -> str:
        return self.text if len(self.text) <= MAX_SHOWN else f"{self.text[:MAX_SHOWN]}..."


class ConfigLoader(BoundedLoader):
    """YAML of a config: plain data, Python containers as data, other Python tags as `Opaque`."""


def find_opaque(value: Any) -> Opaque | None:
    """Return the first value within a value that stands for code."""
    if isinstance(value, Opaque):
        return value
    items: Any = ()
    if isinstance(value, dict):
        items = value.values()
    elif isinstance(value, (list, tuple, set)):
        items = value
    return next((found for item in items if (found := find_opaque(item))), None)


def as_text(value: Any) -> Any:
    """Return a value with each `Opaque` replaced by its text, which plain YAML can represent."""
    match value:
        case Opaque(text=text):
            return text
        case dict():
            return {_plain_key(key): as_text(item) for key, item in value.items()}
        case list() | tuple() | set():
            return [as_text(item) for item in value]
    return value


def _plain_key(key: Any) -> Any:
    return key if key is None or isinstance(key, (str, int, float)) else str(key)


def _construct_python(loader: ConfigLoader, suffix: str, node: yaml.Node) -> Any:
    match node:
        case yaml.SequenceNode() if suffix == "tuple":
            return tuple(loader.construct_sequence(node, deep=True))
        case yaml.SequenceNode() if suffix in (EVAL, ORDERED_DICT):
            values = loader.construct_sequence(node, deep=True)
            read = _arithmetic(values) if suffix == EVAL else _ordered(values)
            return _opaque(loader, suffix, node) if read is None else read
        case yaml.MappingNode() if suffix.startswith(NEW):
            return _container(loader, suffix, node)
    if suffix in PLAIN_TAGS:
        return _construct_plain(loader, PLAIN_TAGS[suffix], node)
    return _opaque(loader, suffix, node)


def _construct_plain(loader: ConfigLoader, name: str, node: yaml.Node) -> Any:
    """Construct a value of a tag that is another name of one of YAML's own."""
    match node:
        case yaml.SequenceNode() if name == "seq":
            return loader.construct_sequence(node, deep=True)
        case yaml.MappingNode() if name == "map":
            return loader.construct_mapping(node, deep=True)
    return loader.yaml_constructors[f"tag:yaml.org,2002:{name}"](loader, node)


def _container(loader: ConfigLoader, suffix: str, node: yaml.MappingNode) -> Any:
    """Construct the content of a pickled mapping or list, such as a CfgNode."""
    content = loader.construct_mapping(node, deep=True)
    if content.keys() <= CONTENT_KEYS:
        items, values = content.get("dictitems"), content.get("listitems")
        if isinstance(items, dict) and values is None:
            return items
        if isinstance(values, list) and items is None:
            return values
        if items is None and values is None and suffix.endswith("CfgNode"):
            return {}
    return _opaque(loader, suffix, node)


def _arithmetic(values: list[Any]) -> Any:
    """The value of an expression of numbers; None for all others."""
    match values:
        case [str() as text]:
            try:
                return evaluate(text)
            except ValueError:
                return None
    return None


def _ordered(values: list[Any]) -> dict[Any, Any] | None:
    match values:
        case []:
            return {}
        case [list() as pairs] if all(_is_pair(pair) for pair in pairs):
            return dict(pairs)
    return None


def _is_pair(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str)


def _opaque(loader: ConfigLoader, suffix: str, node: yaml.Node) -> Opaque:
    content: Any = node.value
    if isinstance(node, yaml.SequenceNode):
        content = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        content = loader.construct_mapping(node, deep=True)
    return Opaque(f"!!python/{suffix} {content or ''}".rstrip())


ConfigLoader.add_multi_constructor(PYTHON_TAG, _construct_python)
