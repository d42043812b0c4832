"""Kinds of values that lazy configs alone have."""

from typing import Any

from handler.rcnn.config.keys import NORMS
from handler.rcnn.config.kinds import Key, is_number, one_of

NORM = one_of("", "LN", "FrozenBN", *NORMS)


def whole_numbers(least: int = 0) -> Key:
    """A list of whole numbers, which may be empty."""

    def check(value: Any) -> bool:
        return isinstance(value, list) and all(
            isinstance(item, int) and is_number(item) and item >= least for item in value
        )

    return Key([], check, f"a list of whole numbers of at least {least}")


def equal_numbers(default: list[int], least_count: int) -> Key:
    """A list of `least_count` or more whole numbers above 0, all the same."""
    whole = whole_numbers(1)

    def check(value: Any) -> bool:
        return whole.check(value) and len(value) >= least_count and len(set(value)) <= 1

    return Key(default, check, f"a list of {least_count} or more equal whole numbers above 0")


def train_and_test(default: int) -> Key:
    """Two whole numbers above 0, the second for inference."""
    whole = whole_numbers(1)
    return Key(
        [default, default],
        lambda value: whole.check(value) and len(value) == 2,
        "a list of two whole numbers above 0, the second for inference",
    )
