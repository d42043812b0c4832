"""Read Detectron2's YAML configs as nested dicts, `_BASE_` chains included."""

import ast
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from d2serve.building.arithmetic import evaluate
from d2serve.errors import ConfigError
from d2serve.serving.safe_yaml import BoundedLoader, read_yaml_text

BASE_KEY = "_BASE_"
# Detectron2's own configs have two bases at most.
MAX_FILES = 32
EVAL_TAG = "tag:yaml.org,2002:python/object/apply:eval"


class ConfigLoader(BoundedLoader):
    """Plain YAML, and the only tag in Detectron2's own configs."""


def _construct_eval(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    try:
        match node:
            case yaml.SequenceNode(value=[yaml.ScalarNode(value=str() as text)]):
                return evaluate(text)
        raise ValueError("the tag needs a list with one string")
    except ValueError as error:
        raise yaml.constructor.ConstructorError(
            None, None, f"only arithmetic on numbers is evaluated: {error}", node.start_mark
        ) from error


ConfigLoader.add_constructor(EVAL_TAG, _construct_eval)


def read_yaml_config(path: Path) -> dict[str, Any]:
    """Read the keys that a config and its bases set; a config overrides its bases.

    As in fvcore's CfgNode, `_BASE_` is a path or a list of paths, relative to the file that
    contains it, and a string that is a Python literal ("(640, 672)", "1e-3") becomes its value.

    Raises:
        ConfigError: a file is missing, is not a YAML mapping, contains a tag that would run code,
            or is its own base; or there are more than MAX_FILES files.
    """
    return _read(path, (), count(1))


def merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """Return `base` updated with `override`, nested mappings key by key.

    Examples:
        >>> merge({"MODEL": {"MASK_ON": False, "DEVICE": "cuda"}}, {"MODEL": {"MASK_ON": True}})
        {'MODEL': {'MASK_ON': True, 'DEVICE': 'cuda'}}
    """
    merged = dict(base)
    for key, value in override.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            value = merge(below, value)
        merged[key] = value
    return merged


def _read(path: Path, children: tuple[Path, ...], reads: Iterator[int]) -> dict[str, Any]:
    """Read a file and its bases.

    Args:
        path: the file.
        children: the files that it is a base of, directly or indirectly.
        reads: counts the files; the base of two files is read twice.
    """
    path = path.expanduser().resolve()
    if path in children:
        raise ConfigError(f"{BASE_KEY} is circular: {path.name} is its own base; remove one base")
    if next(reads) > MAX_FILES:
        raise ConfigError(
            f"{BASE_KEY} leads to more than {MAX_FILES} files, the last is {path.name}; "
            "combine them in one file"
        )
    own = _parse(path)
    bases = own.pop(BASE_KEY, [])
    merged: dict[str, Any] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        merged = merge(merged, _read(_base_path(base, path), (*children, path), reads))
    return merge(merged, own)


def _base_path(base: Any, child: Path) -> Path:
    if not isinstance(base, str) or "://" in base:
        raise ConfigError(
            f"{child.name}: {BASE_KEY} is {base!r}, expected the path of a local file such as "
            "../Base-RCNN-FPN.yaml"
        )
    return child.parent / Path(base).expanduser()


def read_mapping(path: Path, loader: type[BoundedLoader], description: str) -> dict[Any, Any]:
    """Read a YAML file that holds a mapping.

    Args:
        path: the file.
        loader: loader that constructs plain data only.
        description: the kind of YAML that the loader accepts, for the error.

    Raises:
        ConfigError: the file cannot be read, or is not such YAML.
    """
    try:
        content = yaml.load(read_yaml_text(path), loader)  # noqa: S506, a safe loader
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path} is not {description}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"config {path} is a {type(content).__name__}, expected a YAML mapping")
    return content


def _parse(path: Path) -> dict[str, Any]:
    content = read_mapping(path, ConfigLoader, "plain YAML")
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
