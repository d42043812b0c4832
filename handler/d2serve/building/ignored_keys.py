"""Remove keys from a config that the user declares irrelevant for inference."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from d2serve.building.config_values import flatten, is_unknown
from d2serve.building.extensions import known_keys
from d2serve.building.unknown_keys import find_fixed, find_owners
from d2serve.errors import ConfigError

# In an archive's model folder: what was ignored when it was built.
IGNORED_KEYS_FILE = "ignored_keys.yaml"


def split_ignored(
    explicit: dict[str, Any], patterns: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a keyed config into the keys to read, nested, and the ignored ones by dotted name.

    Only keys that neither Detectron2 defines nor d2serve reads are ignored: by name, by the name of
    their section,
    or by a pattern with `*`, which matches dots too.

    Raises:
        ConfigError: a pattern matches no key, only keys of Detectron2, or a key of a known project
            that changes the network; see `network_keys`.

    Examples:
        >>> split_ignored({"INPUT": {"FORMAT": "BGR", "SLICE_SIZE": 512}}, ["INPUT.SLICE_*"])
        ({'INPUT': {'FORMAT': 'BGR'}}, {'INPUT.SLICE_SIZE': 512})
    """
    given = dict(flatten(explicit))
    removable = {name for name in given if is_unknown(name)} - {*known_keys(given).keys}
    for pattern in patterns:
        _check(pattern, given, removable)
    ignored = {
        name: value
        for name, value in given.items()
        if name in removable and any(_matches(name, pattern) for pattern in patterns)
    }
    fixed = find_fixed(ignored, find_owners(given))
    if fixed:
        raise ConfigError(f"--ignore-key {' '.join(map(repr, patterns))}: {fixed}")
    return (dict(_without(explicit, ignored)) if ignored else explicit), ignored


def _check(pattern: str, given: dict[str, Any], removable: set[str]) -> None:
    matched = [name for name in given if _matches(name, pattern)]
    if not removable.isdisjoint(matched):
        return
    if matched:
        if is_unknown(matched[0]):
            raise ConfigError(
                f"--ignore-key {pattern!r} matches only keys that d2serve reads, such as "
                f"{matched[0]}: they change the network; correct the pattern"
            )
        raise ConfigError(
            f"--ignore-key {pattern!r} matches only keys that Detectron2 defines, such as "
            f"{matched[0]}, which are read or ignored as Detectron2 does; correct the pattern"
        )
    raise ConfigError(
        f"--ignore-key {pattern!r} matches no key of the config; correct or remove the pattern"
    )


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _without(
    node: dict[str, Any], names: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """The items of a mapping without keys, and without the sections that are empty then."""
    for key, value in node.items():
        name = f"{prefix}{key}"
        if name in names:
            continue
        if isinstance(value, dict):
            kept = dict(_without(value, names, f"{name}."))
            if kept or not value:
                yield key, kept
        else:
            yield key, value
