"""Read Detectron2's YAML configs as nested dicts, `_BASE_` chains included."""

import ast
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from d2serve.building.old_versions import upgrade
from d2serve.building.python_tags import ConfigLoader
from d2serve.errors import ConfigError
from d2serve.serving.safe_yaml import BoundedLoader, read_yaml_text

BASE_KEY = "_BASE_"
# Detectron2's own configs have two bases at most.
MAX_FILES = 32


def read_yaml_config(path: Path) -> dict[str, Any]:
    """Read the keys that a config and its bases set; a config overrides its bases.

    As in fvcore's CfgNode, `_BASE_` is a path or a list of paths, relative to the file that
    contains it, and a string that is a Python literal ("(640, 672)", "1e-3") becomes its value.
    Python tags are data, see `python_tags`; keys of older versions get their current names.

    Raises:
        ConfigError: a file is missing, is not a YAML mapping, or is its own base; or there are more
            than MAX_FILES files.
    """
    return upgrade(_read(path, (), count(1)))


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
    real = _real_path(path)
    if real in children:
        raise ConfigError(f"{BASE_KEY} is circular: {path.name} is its own base; remove one base")
    if next(reads) > MAX_FILES:
        raise ConfigError(
            f"{BASE_KEY} leads to more than {MAX_FILES} files, the last is {path.name}; "
            "combine them in one file"
        )
    own = _parse(path.expanduser())
    bases = own.pop(BASE_KEY, [])
    merged: dict[str, Any] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        merged = merge(merged, _read(_base_path(base, path), (*children, real), reads))
    return merge(merged, own)


def _base_path(base: Any, child: Path) -> Path:
    """The path of a base; relative ones start where the child is, or the link to it."""
    if not isinstance(base, str) or "://" in base:
        raise ConfigError(
            f"{child.name}: {BASE_KEY} is {base!r}, expected the path of a local file such as "
            "../Base-RCNN-FPN.yaml"
        )
    path = child.parent / _expand_user(base)
    if not _exists(path):
        raise ConfigError(
            f"config {child}: {BASE_KEY} is {base!r}, but {path} does not exist; copy the file "
            f"there or correct the path in {child.name}"
        )
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a folder without access, a null byte
        return False


def _expand_user(base: str) -> Path:
    try:
        return Path(base).expanduser()
    except RuntimeError:  # the user does not exist
        return Path(base)


def _real_path(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"config {path} cannot be read: {error}") from error


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
    except (OSError, UnicodeError) as error:
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
