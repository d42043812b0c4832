"""The values of a lazy config, checked where they are read."""

import re
from collections.abc import Iterator
from typing import Any

from d2serve.building.config_keys import NORMS
from d2serve.building.config_values import raise_unsupported
from d2serve.building.key_types import Key, is_number, one_of
from d2serve.building.lazy_yaml import TARGET_KEY

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


# Detectron2 gives its classes several names; its projects' classes are others.
LIBRARY = r"detectron2\.(?:modeling|layers)\.(?:\w+\.)*"
# The arguments of what nobody knows.
CLOSED = object()


class Problems:
    """What is not served, by the path of each value; conflicts count where all else is served."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.conflicts: dict[str, str] = {}


class LazyNode:
    """The arguments of one class or function.

    Whoever reads a node reads all that has a say in the answers, and names what has none: what is
    left over is a problem. Problems are collected, so that one error can tell them all.
    """

    def __init__(self, path: str, given: Any, problems: Problems) -> None:
        self.path = path
        self.problems = problems
        self.read = {TARGET_KEY}
        self.children: list[LazyNode] = []
        # What is made of the arguments of an unknown class is nobody's guess.
        self.closed = not isinstance(given, dict)
        self.given: dict[str, Any] = {} if self.closed else given
        if self.closed and given is not CLOSED:
            problems.values[path] = f"{path}: {given!r} (supported: arguments by name)"

    def value(self, name: str, key: Key) -> Any:
        """An argument; its default where it is absent or not served."""
        self.read.add(name)
        if name not in self.given:
            return key.default
        value = self.given[name]
        if key.check(value):
            return value
        self.refuse(name, f"supported: {key.allowed}")
        return key.default

    def needed(self, name: str, key: Key) -> Any:
        """An argument that must be there."""
        if name not in self.given:
            self.refuse(name, f"supported: {key.allowed}")
        return self.value(name, key)

    def agree(self, name: str, expected: Any) -> None:
        """An argument that must be what others make of it."""
        self.read.add(name)
        if self.given.get(name) != expected:
            self.conflict(name, f"must be {expected!r}")

    def has(self, name: str) -> bool:
        """Whether an argument is there and not None."""
        self.read.add(name)
        return self.given.get(name) is not None

    def child(self, name: str) -> "LazyNode":
        """An argument that is a call with arguments of its own."""
        self.read.add(name)
        return self._add(name, CLOSED if self.closed else self.given.get(name))

    def list_of(self, name: str) -> list["LazyNode"]:
        """An argument that is a list of calls, one or more."""
        self.read.add(name)
        items = self.given.get(name)
        if not isinstance(items, list) or not items:
            self.refuse(name, "supported: a list of one or more")
            items = [CLOSED]
        return [self._add(f"{name}[{index}]", item) for index, item in enumerate(items)]

    def target(self, *names: str) -> str:
        """Which of Detectron2's classes of these names is called, the first where it is none."""
        return self.called({name: LIBRARY + re.escape(name) for name in names})

    def called(self, patterns: dict[str, str]) -> str:
        """What is called, by the pattern of its full name; the first where it is none."""
        called = self.given.get(TARGET_KEY)
        for name, pattern in patterns.items():
            if isinstance(called, str) and re.fullmatch(pattern, called):
                return name
        self.refuse(TARGET_KEY, f"supported: {' or '.join(map(repr, patterns))}")
        self.closed, self.given = True, {}
        return next(iter(patterns))

    def ignore(self, *names: str) -> None:
        """Tells which arguments only training reads, or say what the others say already."""
        self.read.update(names)

    def refuse(self, name: str, why: str) -> None:
        """Tells of an argument that is not served."""
        self._tell(self.problems.values, name, why)

    def conflict(self, name: str, why: str) -> None:
        """Tells of an argument that does not go with others."""
        self._tell(self.problems.conflicts, name, why)

    def unread(self) -> Iterator[str]:
        """What nobody asked for, here and below."""
        for name, value in self.given.items():
            if name not in self.read:
                yield f"{self._path_of(name)}: {value!r} (supported: only without it)"
        for child in self.children:
            yield from child.unread()

    def _add(self, name: str, given: Any) -> "LazyNode":
        child = LazyNode(self._path_of(name), given, self.problems)
        self.children.append(child)
        return child

    def _tell(self, problems: dict[str, str], name: str, why: str) -> None:
        if not self.closed:
            path = self._path_of(name)
            problems.setdefault(path, f"{path}: {self.given.get(name)!r} ({why})")

    def _path_of(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def require_served(root: LazyNode) -> None:
    """To be called when all is read.

    Raises:
        ConfigError: something is not served, or else does not go with others; the message lists
            all of it.
    """
    problems = [*root.problems.values.values(), *root.unread()]
    raise_unsupported(problems or [*root.problems.conflicts.values()])
