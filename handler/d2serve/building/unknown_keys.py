"""Describe the keys of a config that Detectron2 does not define."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from d2serve.building.config_keys import IGNORED, KEYS
from d2serve.building.network_keys import changes_standard_network, is_network_key
from d2serve.building.other_projects import OTHER_PROJECTS
from d2serve.building.projects import IN_PACKAGE, Project

# Minimum similarity of a typo, 0..1: a letter or two of a word differ.
MIN_SIMILARITY = 0.8
# Further keys of another project are counted.
MAX_LISTED = 3
# Further patterns to ignore are left to the reader.
MAX_PATTERNS = 8
# The last parts of keys whose values are names of classes.
CLASS_KEYS = ("HEAD_NAME", "META_ARCHITECTURE", "NAME")
# Detectron2's own class for which the message of the key has the reason.
EXPLAINED = "PrecomputedProposals"
TOP_SECTIONS = {name.partition(".")[0] for name in (*KEYS, *IGNORED)}


def describe_unknown(unknown: Mapping[str, Any], owners: Mapping[str, Project]) -> list[str]:
    """Describe unknown keys: those of an unsupported project by three of them, all others singly.

    Args:
        unknown: the keys and their values.
        owners: the projects of the config's keys and values, see `find_owners`.
    """
    unsupported = [each for each in _other_projects(owners) if not each.is_supported]
    lines = [
        f"{name}: {value!r} (not a key of Detectron2's own config{_origin(name, owners)})"
        for name, value in unknown.items()
        if owners.get(name) not in unsupported
    ]
    for project in unsupported:
        names = [name for name in unknown if owners.get(name) is project]
        if names:
            more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
            shown = ", ".join(names[:MAX_LISTED])
            kind = "keys" if len(names) > 1 else "a key"
            lines.append(f"{shown}{more} (not Detectron2's own, but {kind} of {project.name})")
    return lines


def project_notes(owners: Mapping[str, Project]) -> list[str]:
    """Explain the projects outside the package that unsupported keys and values belong to."""
    return [
        f"{project.name} ({project.source}) has networks of its own, which are part neither of "
        "d2serve nor of the detectron2 package; a model that uses them cannot be served"
        for project in _other_projects(owners)
        if not project.is_supported
    ]


def class_notes(problems: Mapping[str, Any], owners: Mapping[str, Project]) -> list[str]:
    """Explain names of classes that neither the package nor a known project has.

    Args:
        problems: the keys of Detectron2 whose values are unsupported.
        owners: the projects of the config's keys and values, see `find_owners`.
    """
    classes = [
        f"{name}: {value!r}"
        for name, value in problems.items()
        if name.rpartition(".")[2] in CLASS_KEYS
        and isinstance(value, str)
        and value not in ("", EXPLAINED)
        and name not in owners
    ]
    if not classes or not all(each.is_supported for each in _other_projects(owners)):
        return []
    return [
        f"{', '.join(classes)}: neither d2serve nor the detectron2 package has this class; correct "
        "the name if it is misspelt; a model with a class of another project cannot be served"
    ]


def ignore_hint(unknown: Mapping[str, Any], owners: Mapping[str, Project]) -> list[str]:
    """Explain how to ignore unknown keys, or why they cannot be ignored.

    The result is empty if a key is probably a typo or part of a known project's network.
    """
    fixed = find_fixed(unknown, owners)
    if fixed:
        return [fixed]
    if any(name in owners and is_network_key(name, value) for name, value in unknown.items()):
        return []
    if not _is_foreign(owners) and any(_is_typo(name, owners) for name in unknown):
        return []
    patterns = list(dict.fromkeys(_pattern(name) for name in unknown))
    shown = patterns[:MAX_PATTERNS]
    more = " and so on" if len(patterns) > len(shown) else ""
    options = " ".join(f"--ignore-key '{pattern}'" for pattern in shown)
    hint = (
        "if the network does not depend on these keys, ignore them by name or pattern: "
        f"{options}{more} (with make: IGNORE_KEYS='{' '.join(shown)}'{more})"
    )
    doubtful = [
        name
        for name, value in unknown.items()
        if name not in owners and is_network_key(name, value)
    ]
    if not doubtful:
        return [hint]
    return [
        hint,
        f"{doubtful[0]} may change the network although the weights match; compare the results "
        "with those of your own code first",
    ]


def find_fixed(unknown: Mapping[str, Any], owners: Mapping[str, Project]) -> str:
    """Describe a key that changes the network and cannot be ignored; empty without one."""
    for name, value in unknown.items():
        if name in owners and changes_standard_network(name, value, owners[name]):
            return (
                f"{name}: {value!r} is a key of {_source(owners[name])} that changes the network, "
                "so it cannot be ignored: the weights may match and the results be wrong"
            )
    return ""


def find_owners(values: Mapping[str, Any]) -> dict[str, Project]:
    """Return the project of each key or value that belongs to one.

    Of the projects that have a key, that with the most keys of the config owns it; among equals
    the first.
    """
    projects = (*IN_PACKAGE, *OTHER_PROJECTS)
    matches = {
        project.name: {name for name, value in values.items() if project.has(name, value)}
        for project in projects
    }
    ranked = sorted(projects, key=lambda project: -len(matches[project.name]))
    return {
        name: owner
        for name in values
        if (owner := next((each for each in ranked if name in matches[each.name]), None))
    }


def similar_key(name: str) -> str | None:
    """A known key of the same section with a similar name."""
    section, _, last = name.rpartition(".")
    siblings = [key.rpartition(".")[2] for key in KEYS if key.rpartition(".")[0] == section]
    close = get_close_matches(last, siblings, n=1, cutoff=MIN_SIMILARITY)
    return f"{section}.{close[0]}" if close else None


def _origin(name: str, owners: Mapping[str, Project]) -> str:
    if name in owners:
        return f", but of {_source(owners[name])}"
    intended = None if _is_foreign(owners) else similar_key(name)
    return f", did you mean {intended}?" if intended else ""


def _source(project: Project) -> str:
    """The name of a project; forks add keys to the sections of projects outside the package."""
    return project.name if project in IN_PACKAGE else f"{project.name} or a fork"


def _is_typo(name: str, owners: Mapping[str, Project]) -> bool:
    return name not in owners and similar_key(name) is not None


def _is_foreign(owners: Mapping[str, Project]) -> bool:
    """Return whether a config is another project's: its further keys are probably its own too."""
    return any(_other_projects(owners))


def _pattern(name: str) -> str:
    """A pattern for a key: its top section if Detectron2 has no such section."""
    top = name.partition(".")[0]
    return name if top in TOP_SECTIONS else top


def _other_projects(owners: Mapping[str, Project]) -> Iterator[Project]:
    return (project for project in _distinct(owners.values()) if project in OTHER_PROJECTS)


def _distinct(projects: Iterable[Project]) -> list[Project]:
    return list({project.name: project for project in projects}.values())
