"""Read Detectron2's YAML configs as nested dicts, `_BASE_` chains included."""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from d2serve.serving.safe_yaml import BoundedLoader, read_yaml_text

LONGEST = 1000
# Comprehensions in each other multiply; Detectron2's own configs take under a hundred.
MOST_STEPS = 10_000
LARGEST_EXPONENT = 64
OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def evaluate(text: str) -> Any:
    """Numbers, + - * / **, lists and one-variable list comprehensions over them; nothing else.

    Raises:
        ValueError: the text is something else, too long, has no result or takes too many steps.
    """
    if len(text) > LONGEST:
        raise ValueError(f"an expression of more than {LONGEST} characters")
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, {}, iter(range(MOST_STEPS)))
    except (SyntaxError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r} cannot be worked out: {error}") from error


def _value(node: ast.expr, names: Mapping[str, Any], steps: Iterator[int]) -> Any:
    if next(steps, None) is None:
        raise ValueError(f"an expression of more than {MOST_STEPS} steps")
    return _worked_out(node, names, steps)


def _worked_out(node: ast.expr, names: Mapping[str, Any], steps: Iterator[int]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, names, steps) for item in items]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(operand, names, steps)
        case ast.BinOp(left=left, op=kind, right=right) if type(kind) in OPERATORS:
            return _binary(type(kind), *(_number(side, names, steps) for side in (left, right)))
        case ast.ListComp(
            elt=item, generators=[ast.comprehension(target=ast.Name(id=name), ifs=[], iter=source)]
        ):
            values = _value(source, names, steps)
            if isinstance(values, list):
                return [_value(item, {**names, name: value}, steps) for value in values]
    raise ValueError(f"{ast.unparse(node)!r} is neither numbers nor lists of them")


def _number(node: ast.expr, names: Mapping[str, Any], steps: Iterator[int]) -> Any:
    value = _value(node, names, steps)
    if not isinstance(value, int | float):
        raise ValueError(f"{ast.unparse(node)!r} is no number")
    return value


def _binary(kind: type[ast.operator], left: Any, right: Any) -> Any:
    if kind is ast.Pow and abs(right) > LARGEST_EXPONENT:
        raise ValueError(f"an exponent over {LARGEST_EXPONENT}")
    # As floats, repeated powers overflow instead of growing without end.
    exact = max(abs(left), abs(right)) < 2**53
    return OPERATORS[kind](left, right) if exact else OPERATORS[kind](float(left), float(right))


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
