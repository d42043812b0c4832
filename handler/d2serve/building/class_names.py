"""Choose the names of a model's classes."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2serve.metadata import ClassCounts, ClassNames, check_class_names, read_class_names

# Made with Detectron2's own catalogue: a file of names for each of its built-in datasets.
DATASET_NAMES = Path(__file__).resolve().parent / "dataset_names"
# The metrics are those of the test set, so its names come first.
DATASET_KEYS = ("TEST", "TRAIN")
THINGS_KEYS = {"RetinaNet": "MODEL.RETINANET.NUM_CLASSES"}


@dataclass(frozen=True)
class Found:
    """Names of one kind of classes, and in words where they are from."""

    names: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class ChosenNames:
    """The names of all classes, and a line for each kind on where they are from."""

    names: ClassNames
    sources: tuple[str, ...]


def choose_class_names(
    classes: Path | None, config: Mapping[str, Any], things: int, stuff: int = 0
) -> ChosenNames:
    """Names from the user's file, else from the config's datasets, else numbers.

    Args:
        classes: the user's class file.
        config: what Detectron2's config sets explicitly.
        things: how many classes of instances the model has.
        stuff: how many classes of pixels it has.

    Raises:
        ClassNamesError: the file cannot be read or does not fit the model.
    """
    given = read_class_names(classes) if classes else ClassNames()
    file = classes.name if classes else ""
    of_things = _choose(given.things, file, "class", things, _things_of(config))
    of_stuff = _choose(given.stuff, file, "stuff", stuff, _stuff_of(config))
    names = ClassNames(of_things.names, of_stuff.names)
    check_class_names(names, class_counts(config, things, stuff), file)
    told = {"class names": of_things, "stuff names": of_stuff}
    return ChosenNames(
        names, tuple(f"{kind}: {found.source}" for kind, found in told.items() if found.names)
    )


def class_counts(config: Mapping[str, Any], things: int, stuff: int) -> ClassCounts:
    """The counts with the keys of the config that set them."""
    architecture = config.get("MODEL", {}).get("META_ARCHITECTURE")
    return ClassCounts(things, stuff, THINGS_KEYS.get(architecture, ClassCounts.things_key))


def _choose(
    given: tuple[str, ...], file: str, word: str, count: int, in_datasets: Iterator[Found]
) -> Found:
    """The given names, else the first of the datasets' that are as many, else numbers."""
    if given:
        return Found(given, f"those of {file}")
    numbered = tuple(f"{word}_{index}" for index in range(count))
    unnamed = Found(numbered, f"{word}_0, {word}_1, ...; CLASSES=names.json gives better ones")
    return next((found for found in in_datasets if len(found.names) == count), unnamed)


def _things_of(config: Mapping[str, Any]) -> Iterator[Found]:
    return (Found(names.things, source) for names, source in _named_datasets(config))


def _stuff_of(config: Mapping[str, Any]) -> Iterator[Found]:
    return (Found(names.stuff, source) for names, source in _named_datasets(config))


def _named_datasets(config: Mapping[str, Any]) -> Iterator[tuple[ClassNames, str]]:
    files = json.loads((DATASET_NAMES / "datasets.json").read_text(encoding="utf-8"))
    for key in DATASET_KEYS:
        for dataset in _listed(config, key):
            if dataset in files:
                source = f"Detectron2's for {dataset} (DATASETS.{key})"
                yield read_class_names(DATASET_NAMES / files[dataset]), source


def _listed(config: Mapping[str, Any], key: str) -> list[str]:
    """The names under DATASETS.`key`, which no network reads and nobody has checked."""
    datasets = config.get("DATASETS")
    names = datasets.get(key) if isinstance(datasets, dict) else None
    listed = names if isinstance(names, (list, tuple)) else [names]
    return [name for name in listed if isinstance(name, str)]
