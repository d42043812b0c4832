"""A config's values, checked where they are read."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from d2serve.building.config_keys import IGNORED, KEYS
from d2serve.building.yaml_config import ConfigError

# Of two spellings, 0..1: a letter or two of a word are wrong.
LEAST_LIKENESS = 0.8


class MisspeltKeyError(ConfigError):
    """A config with a key that nobody has, beside which one is spelt almost alike."""


class ConfigValues:
    """What a config sets, with Detectron2's defaults for the rest.

    A family reads the keys that it needs and no others, so a value that has no say in its answers
    is never a problem. Problems are collected, so that one error can tell them all.
    """

    def __init__(self, explicit: dict[str, Any]) -> None:
        self.given = dict(_flatten(explicit))
        self.problems: dict[str, str] = {}
        self.conflicts: dict[str, str] = {}

    def __getitem__(self, name: str) -> Any:
        """The value of a key; its default in place of one that is not served."""
        key = KEYS[name]
        value = self.given.get(name, key.default)
        if key.check(value):
            return value
        self.problems[name] = f"{name}: {value!r} (supported: {key.allowed})"
        return key.default

    def refuse(self, name: str, why: str) -> None:
        """Tells of a value that does not go with others."""
        self.conflicts[name] = f"{name}: {self[name]!r} ({why})"

    def require_served(self) -> None:
        """To be called when all is read.

        Raises:
            ConfigError: a value is not served or a key unknown, or else values do not go together.
        """
        unknown = [name for name in self.given if name not in KEYS and not _is_ignored(name)]
        meant = {name: _meant_by(name) for name in unknown}
        problems = [
            *self.problems.values(),
            *(_unknown(name, self.given[name], meant[name]) for name in unknown),
        ]
        error = MisspeltKeyError if any(meant.values()) else ConfigError
        raise_unsupported(problems or [*self.conflicts.values()], error)


def raise_unsupported(problems: list[str], error: type[ConfigError] = ConfigError) -> None:
    """Tells all problems at once, where there are some, by raising `error`."""
    if problems:
        several = "\n  " if len(problems) > 1 else " "
        raise error(f"this config is not supported:{several}" + "\n  ".join(problems))


def _unknown(name: str, value: Any, meant: str | None) -> str:
    hint = f", but {meant} is" if meant else ""
    return f"{name}: {value!r} (not a key of Detectron2's own config{hint})"


def _meant_by(name: str) -> str | None:
    """The key beside it that is spelt almost alike; a project's own keys are not."""
    parent, _, last = name.rpartition(".")
    beside = [key.rpartition(".")[2] for key in KEYS if key.rpartition(".")[0] == parent]
    close = get_close_matches(last, beside, n=1, cutoff=LEAST_LIKENESS)
    return f"{parent}.{close[0]}" if close else None


def _flatten(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in KEYS:
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value


def _is_ignored(name: str) -> bool:
    return any(name == known or name.startswith(f"{known}.") for known in IGNORED)
