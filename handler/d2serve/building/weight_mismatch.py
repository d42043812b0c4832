"""Describe why a checkpoint does not match a network, for the person who builds the archive."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

MAX_NAMES = 20
MAX_MODULES = 4
Tensors = Mapping[str, Tensor]
MASK_HEAD = "roi_heads.mask_head"
# Forks of Detectron2 whose configs have its own names only, by a weight of their networks.
FORKS = {
    f"{MASK_HEAD}.predictor_uncertain.weight": "Mask Transfiner (github.com/SysCV/transfiner)",
    f"{MASK_HEAD}.boundary_predictor_bo.weight": "BCNet (github.com/lkeab/BCNet)",
}


@dataclass(frozen=True)
class ClassLayer:
    """A layer whose shape depends on the number of classes.

    Attributes:
        weight: pattern of its weight's name.
        classes: the kind of classes, in words.
        key: the config key that sets their number.
        count: number of classes from the weight's rows and the network's anchors per cell.
        beside: a weight that the network must have too.
    """

    weight: re.Pattern[str]
    classes: str
    key: str
    count: Callable[[int, int], int]
    beside: str = ""


CLASS_LAYERS = (
    ClassLayer(
        re.compile(r"roi_heads\.box_predictor\.(?:\d+\.)?cls_score\.weight"),
        "classes",
        "MODEL.ROI_HEADS.NUM_CLASSES",
        lambda rows, _: rows - 1,
    ),
    ClassLayer(
        re.compile(r"roi_heads\.mask_head\.predictor\.weight"),
        "mask classes",
        "MODEL.ROI_HEADS.NUM_CLASSES",
        lambda rows, _: rows,
    ),
    ClassLayer(
        re.compile(r"head\.cls_score\.weight"),
        "classes",
        "MODEL.RETINANET.NUM_CLASSES",
        lambda rows, anchors: rows // anchors,
    ),
    # Sparse R-CNN and Mask DINO, with or without "no object", as the config says.
    ClassLayer(
        re.compile(r"head\.head_series\.\d+\.class_logits\.weight"),
        "class scores",
        "MODEL.SparseRCNN.NUM_CLASSES",
        lambda rows, _: rows,
    ),
    ClassLayer(
        re.compile(r"sem_seg_head\.predictor\.class_embed\.weight"),
        "class scores",
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
        lambda rows, _: rows,
        beside="sem_seg_head.predictor._bbox_embed.layers.0.weight",
    ),
    ClassLayer(
        re.compile(r"sem_seg_head\.predictor\.class_embed\.weight"),
        "classes",
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
        lambda rows, _: rows - 1,
    ),
    ClassLayer(
        re.compile(r"sem_seg_head\.predictor\.weight"),
        "stuff classes",
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
        lambda rows, _: rows,
    ),
)


def describe_mismatch(expected: Tensors, given: Tensors) -> str:
    """Summarise the mismatch in one line, then list the names; "" if all names and shapes match.

    Args:
        expected: the network's state dict.
        given: the checkpoint's weights.
    """
    problems = [
        *(f"missing: {name} {_shape(expected[name])}" for name in _only_in(expected, given)),
        *(f"unexpected: {name} {_shape(given[name])}" for name in _only_in(given, expected)),
        *(
            f"shape of {name}: {_shape(given[name])}, the config requires {_shape(expected[name])}"
            for name in _of_other_shape(expected, given)
        ),
    ]
    if not problems:
        return ""
    listed = problems[:MAX_NAMES]
    if len(problems) > MAX_NAMES:
        listed.append(f"... and {len(problems) - MAX_NAMES} more")
    return "\n  ".join([_summary(expected, given), *listed])


def _summary(expected: Tensors, given: Tensors) -> str:
    lacks = _modules_without(_only_in(expected, given), given)
    has = _modules_without(_only_in(given, expected), expected)
    parts = [f"{verb} {_join(names)}" for verb, names in (("lacks", lacks), ("has", has)) if names]
    difference = f"it {' and '.join(parts)}" if parts else "weights have other shapes"
    fork = next((FORKS[name] for name in FORKS if name in given), None)
    if fork:
        return (
            f"the checkpoint is of {fork}, which is part neither of d2serve nor of the detectron2 "
            f"package: {difference}"
        )
    if any("." not in module for module in (*lacks, *has)):
        return f"the checkpoint has another architecture than the config: {difference}"
    return _class_counts(expected, given) or (
        f"the checkpoint does not match the config: {difference}"
    )


def _class_counts(expected: Tensors, given: Tensors) -> str | None:
    """Both numbers of classes, if a layer differs in that alone."""
    anchors = len(expected.get("head.bbox_pred.weight", ())) // 4
    layers = [layer for layer in CLASS_LAYERS if layer.beside in ("", *expected)]
    for layer in layers:
        for name in _of_other_shape(expected, given):
            if layer.weight.fullmatch(name) and expected[name].shape[1:] == given[name].shape[1:]:
                received = layer.count(len(given[name]), anchors)
                required = layer.count(len(expected[name]), anchors)
                return (
                    f"the checkpoint has {received} {layer.classes}, "
                    f"the config {required} ({layer.key})"
                )
    return None


def _join(names: list[str]) -> str:
    more = ["..."] if len(names) > MAX_MODULES else []
    return ", ".join([*names[:MAX_MODULES], *more])


def _modules_without(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """The largest modules that contain these names and no other, outermost first."""
    shared = {module for other in others for module in _modules_of(other)}
    largest = (next((m for m in _modules_of(name) if m not in shared), name) for name in names)
    return sorted(dict.fromkeys(largest), key=lambda module: module.count("."))


def _modules_of(name: str) -> Iterator[str]:
    """a.b.weight -> a, a.b, a.b.weight."""
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _only_in(tensors: Tensors, others: Tensors) -> list[str]:
    return [name for name in tensors if name not in others]


def _of_other_shape(expected: Tensors, given: Tensors) -> list[str]:
    return [n for n in expected if n in given and given[n].shape != expected[n].shape]


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
