"""Read the values of a lazy config and collect the unsupported ones."""

import re
from collections.abc import Iterator
from typing import Any

from d2serve.building.config_keys import ANY_NORM
from d2serve.building.key_types import MAX_INTEGER, Key, is_integer, is_list, is_number, one_of
from d2serve.building.lazy_yaml import TARGET_KEY
from d2serve.errors import UnsupportedConfigError

NORM = one_of("", *ANY_NORM)
# Detectron2 exports its classes under several names; the classes of its projects are other ones.
LIBRARY = r"detectron2\.(?:modeling|layers)\.(?:\w+\.)*"
# Given for the arguments of an unknown class, which are not checked.
UNKNOWN = object()


def integers(minimum: int = 0) -> Key:
    """A list of integers, which may be empty."""

    def check(value: Any) -> bool:
        return isinstance(value, list) and all(is_integer(n) and n >= minimum for n in value)

    return Key([], check, f"a list of integers of at least {minimum}")


def equal_integers(default: list[int], min_count: int) -> Key:
    """A list of `min_count` or more integers above 0, all equal."""
    positive = integers(1)

    def check(value: Any) -> bool:
        return positive.check(value) and len(value) >= min_count and len(set(value)) <= 1

    return Key(default, check, f"a list of {min_count} or more equal integers above 0")


def train_and_test(default: int, minimum: int = -MAX_INTEGER) -> Key:
    """Two integers, the second for inference."""
    either = integers(minimum)
    least = "" if minimum == -MAX_INTEGER else f" of at least {minimum}"
    return Key(
        [default, default],
        lambda value: either.check(value) and len(value) == 2,
        f"a list of two integers{least}, the second for inference",
    )


class Problems:
    """Unsupported values and conflicts between values, by path."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.conflicts: dict[str, str] = {}
        # Values of a type that no class accepts.
        self.has_wrong_types = False


class LazyNode:
    """The arguments of a class or function of a lazy config.

    A reader reads all arguments that affect inference and ignores the rest by name: an argument
    that is left over is a problem. Problems are collected, so that one error lists all of them.
    """

    def __init__(self, path: str, given: Any, problems: Problems) -> None:
        self.path = path
        self.problems = problems
        self.read = {TARGET_KEY}
        self.children: list[LazyNode] = []
        self.unknown = not isinstance(given, dict)
        self.given: dict[str, Any] = {} if self.unknown else given
        if self.unknown and given is not UNKNOWN:
            problems.values[path] = f"{path}: {given!r} (supported: arguments by name)"

    def value(self, name: str, key: Key) -> Any:
        """Read an argument; its default if it is absent or not supported."""
        self.read.add(name)
        if name not in self.given:
            return key.default
        value = self.given[name]
        if key.check(value):
            return value
        self.problems.has_wrong_types |= not _is_same_kind(value, key.default)
        self.add_problem(name, f"supported: {key.describe(value)}")
        return key.default

    def required(self, name: str, key: Key) -> Any:
        """Read an argument that must be present."""
        if name not in self.given:
            self.add_problem(name, f"supported: {key.allowed}")
        return self.value(name, key)

    def check_equal(self, name: str, expected: Any) -> None:
        """Check an argument that other arguments determine."""
        self.read.add(name)
        if self.given.get(name) != expected:
            self.add_conflict(name, f"must be {expected!r}")

    def has(self, name: str) -> bool:
        """Return whether an argument is present and not None."""
        self.read.add(name)
        return self.given.get(name) is not None

    def child(self, name: str) -> "LazyNode":
        """Read an argument that is a call with arguments of its own."""
        self.read.add(name)
        return self._add_child(name, UNKNOWN if self.unknown else self.given.get(name))

    def child_list(self, name: str) -> list["LazyNode"]:
        """Read an argument that is a list of one or more calls."""
        self.read.add(name)
        items = self.given.get(name)
        if not isinstance(items, list) or not items:
            self.add_problem(name, "supported: a list of one or more")
            items = [UNKNOWN]
        return [self._add_child(f"{name}[{index}]", item) for index, item in enumerate(items)]

    def target(self, *names: str) -> str:
        """Return the name of Detectron2's class that is called; the first name if it is another."""
        return self.match_target({name: LIBRARY + re.escape(name) for name in names})

    def match_target(self, patterns: dict[str, str]) -> str:
        """Return the name whose pattern matches the called class; the first name if none does."""
        called = self.given.get(TARGET_KEY)
        for name, pattern in patterns.items():
            if isinstance(called, str) and re.fullmatch(pattern, called):
                return name
        self.add_problem(TARGET_KEY, f"supported: {' or '.join(map(repr, patterns))}")
        self.unknown, self.given = True, {}
        return next(iter(patterns))

    def ignore(self, *names: str) -> None:
        """Ignore arguments that only training reads, or that other arguments determine."""
        self.read.update(names)

    def add_problem(self, name: str, reason: str) -> None:
        """Record an argument that is not supported."""
        self._record(self.problems.values, name, reason)

    def add_conflict(self, name: str, reason: str) -> None:
        """Record an argument that is not supported together with other ones."""
        self._record(self.problems.conflicts, name, reason)

    def unread(self) -> Iterator[str]:
        """Describe the arguments of this node and its children that have not been read."""
        for name, value in self.given.items():
            if name not in self.read:
                yield f"{self._path_of(name)}: {value!r} (supported: only without it)"
        for child in self.children:
            yield from child.unread()

    def raise_problems(self) -> None:
        """Raise all problems, after all arguments have been read.

        Raises:
            UnsupportedConfigError: arguments are unsupported, else arguments conflict.
        """
        problems = [*self.problems.values.values(), *self.unread()]
        problems = problems or [*self.problems.conflicts.values()]
        if problems:
            raise UnsupportedConfigError(
                problems, package_may_run=not self.problems.has_wrong_types
            )

    def _add_child(self, name: str, given: Any) -> "LazyNode":
        child = LazyNode(self._path_of(name), given, self.problems)
        self.children.append(child)
        return child

    def _record(self, problems: dict[str, str], name: str, reason: str) -> None:
        if not self.unknown:
            path = self._path_of(name)
            problems.setdefault(path, f"{path}: {self.given.get(name)!r} ({reason})")

    def _path_of(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def _is_same_kind(value: Any, default: Any) -> bool:
    """Return whether a value has the type of a default, any if that is None."""
    if default is None:
        return True
    if is_list(default) or is_number(default):
        return is_list(value) if is_list(default) else is_number(value)
    return type(value) is type(default)
