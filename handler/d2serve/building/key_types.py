"""Types of config values: default, accepted values and their description."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Key:
    """A config key that inference reads: its default, which values are served, and in words."""

    default: Any
    check: Check
    allowed: str


def one_of(default: Any, *others: Any) -> Key:
    """One of these values, the first by default."""
    choices = (default, *others)
    return Key(default, lambda value: value in choices, " or ".join(map(repr, choices)))


def only(value: Any, default: Any = None, why: str = "") -> Key:
    """A key of which one value is served; `default` where Detectron2's own default is another."""
    allowed = f"only {value!r}; {why}" if why else f"only {value!r}"
    return Key(value if default is None else default, lambda given: given == value, allowed)


def is_number(value: Any) -> bool:
    """Whether a value counts: True and False do not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def integer(default: int, least: int) -> Key:
    """A whole number."""

    def check(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    return Key(default, check, f"a whole number of at least {least}")


def fraction(default: float) -> Key:
    """A number from 0 to 1."""
    return Key(default, lambda value: is_number(value) and 0 <= value <= 1, "a number from 0 to 1")


def numbers(default: list[float], count: int | None = None, positive: bool = False) -> Key:
    """A list of numbers, `count` of them where given."""

    def check(value: Any) -> bool:
        return (
            isinstance(value, (list, tuple))
            and len(value) > 0
            and all(is_number(item) and (item > 0 or not positive) for item in value)
            and count in (None, len(value))
        )

    kind = "numbers above 0" if positive else "numbers"
    return Key(default, check, f"a list of {count or 'one or more'} {kind}")


def number_lists(default: list[list[float]], count: int | None = None) -> Key:
    """A list of lists of numbers above 0, each of `count` where given."""
    inner = numbers([], count, positive=True)

    def check(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and len(value) > 0 and all(map(inner.check, value))

    return Key(default, check, "a list of lists of numbers above 0")


def names(default: list[str]) -> Key:
    """A list of names of feature maps, not empty."""

    def check(value: Any) -> bool:
        return (
            isinstance(value, (list, tuple))
            and len(value) > 0
            and all(isinstance(item, str) for item in value)
        )

    return Key(default, check, "a list of feature names")


def flag(default: bool) -> Key:
    """True or False."""
    return Key(default, lambda value: isinstance(value, bool), "True or False")


def flags(default: list[bool]) -> Key:
    """As many of True or False as the default has."""

    def check(value: Any) -> bool:
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(default)
            and all(isinstance(item, bool) for item in value)
        )

    return Key(default, check, f"a list of {len(default)} of True or False")
