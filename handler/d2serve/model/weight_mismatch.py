"""Describe why weights do not match a network."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

MOST_NAMES = 20
MOST_PARTS = 4
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class ClassLayer:
    """A layer whose shape tells how many classes there are.

    Attributes:
        weight: matches its weight's name.
        classes: what its classes are called.
        key: the config's key that says how many.
        count: its weights' rows and the network's boxes per place -> classes.
    """

    weight: re.Pattern[str]
    classes: str
    key: str
    count: Callable[[int, int], int]


CLASS_LAYERS = (
    ClassLayer(
        re.compile(r"roi_heads\.box_predictor\.(?:\d+\.)?cls_score\.weight"),
        "classes",
        "MODEL.ROI_HEADS.NUM_CLASSES",
        lambda rows, _: rows - 1,
    ),
    ClassLayer(
        re.compile(r"roi_heads\.mask_head\.predictor\.weight"),
        "classes of masks",
        "MODEL.ROI_HEADS.NUM_CLASSES",
        lambda rows, _: rows,
    ),
    ClassLayer(
        re.compile(r"head\.cls_score\.weight"),
        "classes",
        "MODEL.RETINANET.NUM_CLASSES",
        lambda rows, boxes: rows // boxes,
    ),
    ClassLayer(
        re.compile(r"sem_seg_head\.predictor\.weight"),
        "stuff classes",
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
        lambda rows, _: rows,
    ),
)


def describe_misfit(needed: Tensors, given: Tensors) -> str:
    """One line on what is wrong, then the names; "" where all of `given` fits all of `needed`."""
    names = [*_misfitting(needed, given)]
    if not names:
        return ""
    listed = names[:MOST_NAMES]
    if len(names) > MOST_NAMES:
        listed.append(f"... and {len(names) - MOST_NAMES} more")
    return "\n  ".join([_headline(needed, given), *listed])


def _misfitting(needed: Tensors, given: Tensors) -> Iterator[str]:
    yield from (f"missing: {name} {_shape(needed[name])}" for name in _beyond(needed, given))
    yield from (f"unexpected: {name} {_shape(given[name])}" for name in _beyond(given, needed))
    yield from (
        f"shape of {name}: {_shape(given[name])}, the config needs {_shape(needed[name])}"
        for name in _misshaped(needed, given)
    )


def _headline(needed: Tensors, given: Tensors) -> str:
    lacking = _parts(_beyond(needed, given), given)
    besides = _parts(_beyond(given, needed), needed)
    if any("." not in part for part in (*lacking, *besides)):
        return (
            f"the checkpoint is of another architecture than the config: {_tell(lacking, besides)}"
        )
    for layer in CLASS_LAYERS:
        for name in _misshaped(needed, given):
            if layer.weight.fullmatch(name) and needed[name].shape[1:] == given[name].shape[1:]:
                return _tell_classes(layer, needed, given, name)
    return f"the checkpoint does not fit the config: {_tell(lacking, besides)}"


def _tell(lacking: list[str], besides: list[str]) -> str:
    told = [
        f"{verb} {_join(parts)}" for verb, parts in (("lacks", lacking), ("has", besides)) if parts
    ]
    return f"it {' and '.join(told)}" if told else "weights of other shapes"


def _tell_classes(layer: ClassLayer, needed: Tensors, given: Tensors, name: str) -> str:
    boxes = len(needed.get("head.bbox_pred.weight", ())) // 4
    has, wants = (layer.count(len(tensors[name]), boxes) for tensors in (given, needed))
    return f"the checkpoint has {has} {layer.classes}, the config {wants} ({layer.key})"


def _join(parts: list[str]) -> str:
    more = ["..."] if len(parts) > MOST_PARTS else []
    return ", ".join([*parts[:MOST_PARTS], *more])


def _parts(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """The largest modules with these names that have none of the others, from the top down."""
    shared = {module for other in others for module in _modules(other)}
    parts = (next((m for m in _modules(name) if m not in shared), name) for name in names)
    return sorted(dict.fromkeys(parts), key=lambda part: part.count("."))


def _modules(name: str) -> Iterator[str]:
    """a.b.weight -> a, a.b, a.b.weight."""
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _beyond(tensors: Tensors, others: Tensors) -> list[str]:
    return [name for name in tensors if name not in others]


def _misshaped(needed: Tensors, given: Tensors) -> list[str]:
    return [n for n in needed if n in given and given[n].shape != needed[n].shape]


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
