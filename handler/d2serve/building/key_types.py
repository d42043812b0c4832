"""Types of config values: default, accepted values and their description."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

# Larger integers exceed those of the operators; larger numbers exceed float32.
MAX_INTEGER = 2**31 - 1
MAX_NUMBER = 1e30
Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Key:
    """A config key that inference reads: its default, and a check and description of its values.

    `reasons` explain why single values are not supported.
    """

    default: Any
    check: Check
    allowed: str
    reasons: Mapping[str, str] = field(default_factory=dict)

    def describe(self, value: Any) -> str:
        """Describe the supported values to the author of an unsupported one."""
        reason = self.reasons.get(value) if isinstance(value, str) else None
        return f"{self.allowed}; {reason}" if reason else self.allowed


def one_of(default: Any, *others: Any) -> Key:
    """One of several values, the first by default."""
    choices = (default, *others)
    return Key(
        default,
        lambda value: any(_is_same(value, choice) for choice in choices),
        " or ".join(map(repr, choices)),
    )


def extended(key: Key, values: Sequence[str]) -> Key:
    """A key with further values."""
    return replace(
        key,
        check=lambda value: key.check(value) or value in values,
        allowed=" or ".join([key.allowed, *map(repr, values)]),
    )


def only(value: Any, default: Any = None, reasons: Mapping[str, str] | None = None) -> Key:
    """A key with one supported value; `default` if Detectron2's own default is another one."""
    return Key(
        value if default is None else default,
        lambda given: _is_same(given, value),
        f"only {value!r}",
        reasons or {},
    )


def flag(default: bool) -> Key:
    """True or False."""
    return Key(default, lambda value: isinstance(value, bool), "True or False")


def flags(default: list[bool]) -> Key:
    """A list of True or False, at least as long as the default; a number is True unless it is 0."""

    def check(value: Any) -> bool:
        return (
            is_list(value)
            and len(value) >= len(default)
            and all(_is_bool(item) or is_number(item) for item in value)
        )

    return Key(default, check, f"a list of {len(default)} of True or False")


def integer(default: int, minimum: int = -MAX_INTEGER, maximum: int = MAX_INTEGER) -> Key:
    """An integer."""
    least = "" if minimum == -MAX_INTEGER else f" of at least {minimum}"
    most = "" if maximum == MAX_INTEGER else f" and at most {maximum}"
    return Key(
        default,
        lambda value: is_integer(value) and minimum <= value <= maximum,
        f"an integer{least}{most}",
    )


def number(default: float, minimum: float = -MAX_NUMBER) -> Key:
    """A number."""
    least = "" if minimum == -MAX_NUMBER else f" of at least {minimum:g}"
    return Key(default, lambda value: is_number(value) and value >= minimum, f"a number{least}")


def overlap(default: float) -> Key:
    """A threshold of non-maximum suppression.

    Below 0 boxes without overlap suppress each other, in Detectron2 also those of other classes
    unless there are more than 1,000 boxes.
    """
    allowed = "a number of at least 0; below 0 boxes would suppress boxes that they do not overlap"
    return Key(default, lambda value: is_number(value) and value >= 0, allowed)


def integers(default: list[int]) -> Key:
    """A list of integers above 0, which may be empty."""

    def check(value: Any) -> bool:
        return is_list(value) and all(
            is_integer(item) and 0 < item <= MAX_INTEGER for item in value
        )

    return Key(default, check, "a list of integers above 0")


def sizes_per_stage(default: list[int], maximum: int = 1000) -> Key:
    """A list of integers from 1 to `maximum`, as many as the default has."""

    def check(value: Any) -> bool:
        return (
            is_list(value)
            and len(value) == len(default)
            and all(is_integer(item) and 0 < item <= maximum for item in value)
        )

    return Key(default, check, f"a list of {len(default)} integers from 1 to {maximum}")


def widths(default: list[int]) -> Key:
    """Output channels of convolutions, which may be none; -1 keeps the number of channels."""

    def check(value: Any) -> bool:
        return is_list(value) and all(
            is_integer(item) and (0 < item <= MAX_INTEGER or item == -1) for item in value
        )

    return Key(default, check, "a list of integers above 0 or -1")


def offset(default: float) -> Key:
    """A number from 0 to 1, 1 excluded."""
    return Key(
        default, lambda value: is_number(value) and 0 <= value < 1, "a number from 0 to below 1"
    )


def numbers(default: list[float], count: int | None = None, positive: bool = False) -> Key:
    """A list of `count` numbers, by default of one or more."""

    def check(value: Any) -> bool:
        return (
            is_list(value)
            and len(value) > 0
            and all(is_number(item) and (item > 0 or not positive) for item in value)
            and count in (None, len(value))
        )

    kind = "numbers above 0" if positive else "numbers"
    return Key(default, check, f"a list of {count or 'one or more'} {kind}")


def divisors(default: list[float], count: int | None = None) -> Key:
    """A list of `count` numbers other than 0, by default of one or more."""
    any_number = numbers(default, count)
    return Key(
        default,
        lambda value: any_number.check(value) and all(value),
        f"a list of {count or 'one or more'} numbers other than 0",
    )


def per_channel(default: list[float], divides: bool = False) -> Key:
    """A list with a number for each of 1, 3 or 4 channels, other than 0 if it `divides`."""
    every = divisors(default) if divides else numbers(default)
    kind = "numbers other than 0" if divides else "numbers"
    return Key(
        default,
        lambda value: every.check(value) and len(value) in (1, 3, 4),
        f"a list of 1, 3 or 4 {kind}",
    )


def numbers_per_level(default: list[list[float]]) -> Key:
    """A list of numbers above 0 for all levels, or a list of such lists."""
    flat, lists = numbers([], positive=True), number_lists(default)
    return Key(
        default,
        lambda value: flat.check(value) or lists.check(value),
        "a list of numbers above 0, or a list of such lists",
    )


def number_lists(default: list[list[float]]) -> Key:
    """A list of lists of numbers above 0."""
    inner = numbers([], positive=True)
    return Key(default, lambda value: _all_in(value, inner), "a list of lists of numbers above 0")


def divisor_lists(default: list[list[float]], count: int) -> Key:
    """A list of lists of `count` numbers other than 0."""
    inner = divisors([], count)
    return Key(default, lambda value: _all_in(value, inner), f"a list with entries {inner.allowed}")


def _all_in(value: Any, inner: Key) -> bool:
    return is_list(value) and len(value) > 0 and all(map(inner.check, value))


def names(default: list[str]) -> Key:
    """A list of names of feature maps, one or more."""

    def check(value: Any) -> bool:
        return is_list(value) and len(value) > 0 and all(isinstance(item, str) for item in value)

    return Key(default, check, "a list of feature names")


def indices() -> Key:
    """A list of integers of at least 0, without a default."""

    def check(value: Any) -> bool:
        return value is None or (
            is_list(value) and all(is_integer(item) and 0 <= item <= MAX_INTEGER for item in value)
        )

    return Key(None, check, "a list of integers of at least 0")


def is_list(value: Any) -> bool:
    """Return whether a value is a list or a tuple."""
    return isinstance(value, (list, tuple))


def is_integer(value: Any) -> bool:
    """Return whether a value is an integer; True and False are not."""
    return isinstance(value, int) and not _is_bool(value)


def is_number(value: Any) -> bool:
    """Return whether a value is a finite integer or float; True and False are not."""
    return (
        isinstance(value, (int, float))
        and not _is_bool(value)
        and -MAX_NUMBER <= value <= MAX_NUMBER
    )


def _is_same(value: Any, other: Any) -> bool:
    """Return whether values have the same type too, as 1, 1.0 and True do not."""
    return type(value) is type(other) and bool(value == other)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)
