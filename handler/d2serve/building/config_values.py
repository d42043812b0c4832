"""Read the values of a keyed config and collect the unsupported ones."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from d2serve.building.config_keys import IGNORED, KEYS
from d2serve.errors import ConfigError, MisspelledKeyError

# Minimum similarity of a typo, 0..1: a letter or two of a word differ.
MIN_SIMILARITY = 0.8


class ConfigValues:
    """The values that a config sets, with Detectron2's defaults for the rest.

    A meta-architecture reads only the keys that it needs, so values that do not affect it are
    never a problem. Problems are collected, so that one error lists all of them.
    """

    def __init__(self, explicit: dict[str, Any]) -> None:
        self.given = dict(_flatten(explicit))
        self.problems: dict[str, str] = {}
        self.conflicts: dict[str, str] = {}

    def __getitem__(self, name: str) -> Any:
        """The value of a key; its default if the value is not supported."""
        key = KEYS[name]
        value = self.given.get(name, key.default)
        if key.check(value):
            return value
        self.problems[name] = f"{name}: {value!r} (supported: {key.allowed})"
        return key.default

    def add_conflict(self, name: str, reason: str) -> None:
        """Record a value that is not supported together with other values."""
        self.conflicts[name] = f"{name}: {self[name]!r} ({reason})"

    def raise_problems(self) -> None:
        """Raise all problems, after all keys have been read.

        Raises:
            ConfigError: values are unsupported or keys unknown, else values conflict.
        """
        unknown = [name for name in self.given if name not in KEYS and not _is_ignored(name)]
        intended = {name: _similar_key(name) for name in unknown}
        problems = [
            *self.problems.values(),
            *(_describe_unknown(name, self.given[name], intended[name]) for name in unknown),
        ]
        error = MisspelledKeyError if any(intended.values()) else ConfigError
        raise_unsupported(problems or [*self.conflicts.values()], error)


def raise_unsupported(problems: list[str], error: type[ConfigError] = ConfigError) -> None:
    """Raise `error` with all problems, if there are any."""
    if problems:
        separator = "\n  " if len(problems) > 1 else " "
        raise error(f"this config is not supported:{separator}" + "\n  ".join(problems))


def _describe_unknown(name: str, value: Any, intended: str | None) -> str:
    hint = f", did you mean {intended}?" if intended else ""
    return f"{name}: {value!r} (not a key of Detectron2's own config{hint})"


def _similar_key(name: str) -> str | None:
    """A known key of the same section with a similar name; keys of projects are not similar."""
    section, _, last = name.rpartition(".")
    siblings = [key.rpartition(".")[2] for key in KEYS if key.rpartition(".")[0] == section]
    close = get_close_matches(last, siblings, n=1, cutoff=MIN_SIMILARITY)
    return f"{section}.{close[0]}" if close else None


def _flatten(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in KEYS:
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value


def _is_ignored(name: str) -> bool:
    return any(name == known or name.startswith(f"{known}.") for known in IGNORED)
