"""A config's values, checked where they are read."""

from collections.abc import Iterator
from typing import Any

from handler.rcnn.config.keys import IGNORED, KEYS
from handler.rcnn.yaml_config import ConfigError


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
        problems = [*self.problems.values(), *self._unknown()] or [*self.conflicts.values()]
        raise_unsupported(problems)

    def _unknown(self) -> Iterator[str]:
        for name, value in self.given.items():
            if name not in KEYS and not _is_ignored(name):
                yield f"{name}: {value!r} (not a key of Detectron2's own config)"


def raise_unsupported(problems: list[str]) -> None:
    """Tells all problems at once.

    Raises:
        ConfigError: there are some.
    """
    if problems:
        several = "\n  " if len(problems) > 1 else " "
        raise ConfigError(f"this config is not supported:{several}" + "\n  ".join(problems))


def _flatten(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in KEYS:
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value


def _is_ignored(name: str) -> bool:
    return any(name == known or name.startswith(f"{known}.") for known in IGNORED)
