"""Evaluate the arithmetic expressions in Detectron2's configs without running code."""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

MAX_LENGTH = 1000
# Nested comprehensions multiply; Detectron2's own configs take less than a hundred steps.
MAX_STEPS = 10_000
MAX_EXPONENT = 64
# Larger integers are computed as floats, so that repeated powers overflow instead of growing.
EXACT_LIMIT = 2**53
OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def evaluate(text: str) -> Any:
    """Evaluate numbers, + - * / **, lists, and list comprehensions over one variable.

    Raises:
        ValueError: the text is another expression, too long, has no result or takes too many steps.

    Examples:
        >>> evaluate("[[x, x * 2**(1 / 2)] for x in [32, 64]]")
        [[32, 45.254833995939045], [64, 90.50966799187809]]
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"the expression has {len(text)} characters, the limit is {MAX_LENGTH}")
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, {}, iter(range(MAX_STEPS)))
    except (SyntaxError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r} cannot be evaluated: {error}") from error


def _value(node: ast.expr, names: Mapping[str, Any], steps: Iterator[int]) -> Any:
    if next(steps, None) is None:
        raise ValueError(f"the expression takes more than {MAX_STEPS} steps")
    return _evaluate_node(node, names, steps)


def _evaluate_node(node: ast.expr, names: Mapping[str, Any], steps: Iterator[int]) -> Any:
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
    raise ValueError(f"{ast.unparse(node)!r} is neither a number nor a list of numbers")


def _number(node: ast.expr, names: Mapping[str, Any], steps: Iterator[int]) -> Any:
    value = _value(node, names, steps)
    if not isinstance(value, int | float):
        raise ValueError(f"{ast.unparse(node)!r} is not a number")
    return value


def _binary(kind: type[ast.operator], left: Any, right: Any) -> Any:
    if kind is ast.Pow and abs(right) > MAX_EXPONENT:
        raise ValueError(f"the exponent is {right}, the limit is {MAX_EXPONENT}")
    if max(abs(left), abs(right)) < EXACT_LIMIT:
        return OPERATORS[kind](left, right)
    return OPERATORS[kind](float(left), float(right))
