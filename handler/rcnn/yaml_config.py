"""Reads Detectron2's YAML configs as plain nested dicts, `_BASE_` chains included."""

import ast
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from handler.bounded_yaml import BoundedLoader, read_yaml_text
from handler.rcnn.arithmetic import evaluate

BASE_KEY = "_BASE_"
# Of one config, whoever names them. Detectron2's own have two bases at most.
MOST_FILES = 32
EVAL_TAG = "tag:yaml.org,2002:python/object/apply:eval"


class ConfigError(ValueError):
    """A config that cannot be read or asks for something that is not supported."""


class ConfigLoader(BoundedLoader):
    """Plain YAML, and the one tag that Detectron2's own configs have."""


def _evaluated(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    try:
        match node:
            case yaml.SequenceNode(value=[yaml.ScalarNode(value=str() as text)]):
                return evaluate(text)
        raise ValueError("the tag needs one text in a list")
    except ValueError as error:
        raise yaml.constructor.ConstructorError(
            None, None, f"only arithmetic on numbers is worked out here: {error}", node.start_mark
        ) from error


ConfigLoader.add_constructor(EVAL_TAG, _evaluated)


def read_yaml_config(path: Path) -> dict[str, Any]:
    """Returns what a config and its bases set explicitly, the nearer file winning.

    Follows fvcore's CfgNode: `_BASE_` is one path or a list of them, relative to the file that
    names it, and a string that reads as a Python literal ("(640, 672)", "1e-3") is that literal.

    Raises:
        ConfigError: a file is missing, is not a YAML mapping, holds a tag that would run code, or
            is its own base; or there are more than MOST_FILES to read.
    """
    return _read(path, (), count(1))


def merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """Returns `base` with `override` on top, nested mappings merged key by key."""
    merged = dict(base)
    for key, value in override.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            value = merge(below, value)
        merged[key] = value
    return merged


def _read(path: Path, readers: tuple[Path, ...], reads: Iterator[int]) -> dict[str, Any]:
    """One file on top of its bases.

    Args:
        path: the file.
        readers: whose base it is, and whose base that is, and so on.
        reads: counts the files; one that is the base of two is read twice.
    """
    path = path.expanduser().resolve()
    if path in readers:
        raise ConfigError(f"{BASE_KEY} goes in a circle: {path.name} is its own base")
    if next(reads) > MOST_FILES:
        raise ConfigError(
            f"{BASE_KEY} leads to more than {MOST_FILES} files, the last {path.name}; "
            "write what they set into one file"
        )
    own = _parse(path)
    bases = own.pop(BASE_KEY, [])
    merged: dict[str, Any] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        merged = merge(merged, _read(_base_path(base, path), (*readers, path), reads))
    return merge(merged, own)


def _base_path(base: Any, child: Path) -> Path:
    if not isinstance(base, str) or "://" in base:
        raise ConfigError(
            f"{child.name}: {BASE_KEY} is {base!r}; it must name a file on this machine, "
            "for example ../Base-RCNN-FPN.yaml"
        )
    return child.parent / Path(base).expanduser()


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(read_yaml_text(path), ConfigLoader)  # noqa: S506, a safe loader
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path} is not plain YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"config {path} must be a YAML mapping, not {type(content).__name__}")
    return {str(key): _literal(value) for key, value in content.items()}


def _literal(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _literal(item) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
