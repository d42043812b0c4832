"""Choose the class names of a model."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2serve.metadata import (
    ClassCounts,
    ClassNames,
    check_class_names,
    parse_class_names,
    read_class_names,
)

# Generated from Detectron2's catalogue: the names of each of its built-in datasets.
DATASET_NAMES = Path(__file__).resolve().parent / "dataset_names"
# The test set comes first, because the published metrics are measured on it.
DATASET_KEYS = ("TEST", "TRAIN")
THINGS_KEYS = {
    "RetinaNet": "MODEL.RETINANET.NUM_CLASSES",
    "MaskDINO": "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
    "MaskFormer": "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
}
# The architectures whose instances and pixels have classes of one list.
ONE_LIST = ("MaskDINO", "MaskFormer")


@dataclass(frozen=True)
class NamedClasses:
    """Names of all thing or all stuff classes, and in words their source."""

    names: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class ChosenNames:
    """The names of all classes, and a line on the source of each kind."""

    names: ClassNames
    sources: tuple[str, ...]


def choose_class_names(
    given: Path | Sequence[str] | None, config: Mapping[str, Any], things: int, stuff: int = 0
) -> ChosenNames:
    """Choose the given names, else those of the config's datasets, else numbers.

    Args:
        given: a class file, or the names of the things.
        config: the keys that Detectron2's config sets.
        things: number of thing classes (instances).
        stuff: number of stuff classes (pixels).

    Raises:
        ClassNamesError: the names cannot be read or do not match the model.
    """
    names, source = _read(given)
    of_things, of_stuff, stuff_prefix = _thing_names(config), _stuff_names(config), "stuff"
    if config.get("MODEL", {}).get("META_ARCHITECTURE") in ONE_LIST:
        names = _in_one_list(names, things, stuff)
        of_things, of_stuff, stuff_prefix = _all_names(config), _all_names(config), "class"
    chosen_things = _choose(names.things, source, "class", things, of_things)
    chosen_stuff = _choose(names.stuff, source, stuff_prefix, stuff, of_stuff)
    chosen = ClassNames(chosen_things.names, chosen_stuff.names)
    check_class_names(chosen, class_counts(config, things, stuff), source)
    kinds = {"class names": chosen_things, "stuff names": chosen_stuff}
    return ChosenNames(
        chosen, tuple(f"{kind}: {named.source}" for kind, named in kinds.items() if named.names)
    )


def class_counts(config: Mapping[str, Any], things: int, stuff: int) -> ClassCounts:
    """The numbers of classes with the config keys that set them."""
    architecture = config.get("MODEL", {}).get("META_ARCHITECTURE")
    return ClassCounts(things, stuff, THINGS_KEYS.get(architecture, ClassCounts.things_key))


def _read(given: Path | Sequence[str] | None) -> tuple[ClassNames, str]:
    if given is None:
        return ClassNames(), ""
    if isinstance(given, Path):
        return read_class_names(given), given.name
    return parse_class_names(json.dumps([*given]), "class_names"), "class_names"


def _choose(
    given: tuple[str, ...], source: str, prefix: str, count: int, datasets: Iterator[NamedClasses]
) -> NamedClasses:
    """The given names, else those of the first dataset with as many classes, else numbers."""
    if given:
        return NamedClasses(given, f"from {source}")
    numbers = tuple(f"{prefix}_{index}" for index in range(count))
    numbered = NamedClasses(
        numbers, f"{prefix}_0, {prefix}_1, ...; name them with --classes names.json"
    )
    return next((named for named in datasets if len(named.names) == count), numbered)


def _thing_names(config: Mapping[str, Any]) -> Iterator[NamedClasses]:
    return (NamedClasses(names.things, source) for names, source in _dataset_names(config))


def _in_one_list(names: ClassNames, things: int, stuff: int) -> ClassNames:
    """The same names for things and stuff, or things before stuff if they are given apart."""
    is_one = not names.stuff or names.things == names.stuff
    own = names.things if is_one else names.things + names.stuff
    return ClassNames(own if things else (), own if stuff else ())


def _all_names(config: Mapping[str, Any]) -> Iterator[NamedClasses]:
    """The names of pixel classes, which contain the things, then those of things alone."""
    yield from _stuff_names(config)
    yield from _thing_names(config)


def _stuff_names(config: Mapping[str, Any]) -> Iterator[NamedClasses]:
    return (NamedClasses(names.stuff, source) for names, source in _dataset_names(config))


def _dataset_names(config: Mapping[str, Any]) -> Iterator[tuple[ClassNames, str]]:
    files = json.loads((DATASET_NAMES / "datasets.json").read_text(encoding="utf-8"))
    for key in DATASET_KEYS:
        for dataset in _datasets(config, key):
            if dataset in files:
                source = f"from Detectron2's {dataset} (DATASETS.{key})"
                yield read_class_names(DATASET_NAMES / files[dataset]), source


def _datasets(config: Mapping[str, Any], key: str) -> list[str]:
    """The names under DATASETS.`key`, whose types have not been checked."""
    datasets = config.get("DATASETS")
    names = datasets.get(key) if isinstance(datasets, dict) else None
    listed = names if isinstance(names, (list, tuple)) else [names]
    return [name for name in listed if isinstance(name, str)]
