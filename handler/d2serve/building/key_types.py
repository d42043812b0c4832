"""Types of config values: default, accepted values and their description."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Key:
    """A config key that inference reads: its default, and a check and description of its values."""

    default: Any
    check: Check
    allowed: str


def one_of(default: Any, *others: Any) -> Key:
    """One of several values, the first by default."""
    choices = (default, *others)
    return Key(default, lambda value: value in choices, " or ".join(map(repr, choices)))


def only(value: Any, default: Any = None, why: str = "") -> Key:
    """A key with one supported value; `default` if Detectron2's own default is another one."""
    allowed = f"only {value!r}; {why}" if why else f"only {value!r}"
    return Key(value if default is None else default, lambda given: given == value, allowed)


def flag(default: bool) -> Key:
    """True or False."""
    return Key(default, lambda value: isinstance(value, bool), "True or False")


def flags(default: list[bool]) -> Key:
    """A list of True or False with the length of the default."""

    def check(value: Any) -> bool:
        return is_list(value) and len(value) == len(default) and all(map(_is_bool, value))

    return Key(default, check, f"a list of {len(default)} of True or False")


def integer(default: int, minimum: int) -> Key:
    """An integer."""
    return Key(
        default,
        lambda value: is_integer(value) and value >= minimum,
        f"an integer of at least {minimum}",
    )


def fraction(default: float) -> Key:
    """A number from 0 to 1."""
    return Key(default, lambda value: is_number(value) and 0 <= value <= 1, "a number from 0 to 1")


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


def number_lists(default: list[list[float]], count: int | None = None) -> Key:
    """A list of lists of numbers above 0, each with `count` numbers if given."""
    inner = numbers([], count, positive=True)

    def check(value: Any) -> bool:
        return is_list(value) and len(value) > 0 and all(map(inner.check, value))

    return Key(default, check, "a list of lists of numbers above 0")


def names(default: list[str]) -> Key:
    """A list of names of feature maps, one or more."""

    def check(value: Any) -> bool:
        return is_list(value) and len(value) > 0 and all(isinstance(item, str) for item in value)

    return Key(default, check, "a list of feature names")


def is_list(value: Any) -> bool:
    """Return whether a value is a list or a tuple."""
    return isinstance(value, (list, tuple))


def is_integer(value: Any) -> bool:
    """Return whether a value is an integer; True and False are not."""
    return isinstance(value, int) and not _is_bool(value)


def is_number(value: Any) -> bool:
    """Return whether a value is an integer or a float; True and False are not."""
    return isinstance(value, (int, float)) and not _is_bool(value)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)
