"""Lists of numbers written as Python expressions, worked out without running any Python.

Detectron2's Base-RetinaNet.yaml has its anchor sizes computed by `eval`:
    !!python/object/apply:eval ["[[x, x * 2**(1.0/3), x * 2**(2.0/3) ] for x in [32, 64, 128] ]"]
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

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
