"""Classes of countable objects (things) in datasets with one list of classes."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

# Patterns of a dataset's name, the number of its classes, and the ranges of things, end excluded.
# The first dataset of training counts, as in MaskFormer and Mask2Former.
DATASETS = (
    ("coco_2017_*_panoptic*", 133, ((0, 80),)),
    # Without stuff.
    ("coco_2017_*", 80, ((0, 80),)),
    ("cityscapes_fine_instance_seg_*", 8, ((0, 8),)),
    ("ade20k_instance_*", 100, ((0, 100),)),
    ("cityscapes_fine_panoptic_*", 19, ((11, 19),)),
    (
        "ade20k_panoptic_*",
        150,
        (
            *((7, 9), (10, 11), (12, 13), (14, 16), (18, 21), (22, 25), (27, 28), (30, 34)),
            *((35, 40), (41, 46), (47, 48), (49, 51), (53, 54), (55, 59), (62, 63), (64, 68)),
            *((69, 77), (78, 79), (80, 84), (85, 91), (92, 94), (95, 96), (97, 99), (102, 105)),
            *((107, 109), (110, 113), (115, 117), (118, 122), (123, 128), (129, 131)),
            *((132, 140), (142, 145), (146, 150)),
        ),
    ),
    (
        "mapillary_vistas_panoptic_*",
        65,
        ((0, 2), (8, 9), (19, 24), (32, 43), (44, 58), (59, 63)),
    ),
)
KEYS = ("DATASETS.TRAIN", "DATASETS.TEST")


def things_of(given: Mapping[str, Any], num_classes: int) -> tuple[int, ...] | None:
    """Return the indices of the things in the first known dataset of a config; None without one.

    Args:
        given: the values that the config sets, by dotted name.
        num_classes: the number of classes of the network.

    Examples:
        >>> things_of({"DATASETS.TRAIN": ["cityscapes_fine_panoptic_train"]}, 19)
        (11, 12, 13, 14, 15, 16, 17, 18)
    """
    for name in _names(given):
        for pattern, count, ranges in DATASETS:
            if count == num_classes and fnmatchcase(name, pattern):
                return tuple(index for bounds in ranges for index in range(*bounds))
    return None


def _names(given: Mapping[str, Any]) -> list[str]:
    listed = [given.get(key) for key in KEYS]
    names = [
        name for each in listed for name in (each if isinstance(each, (list, tuple)) else [each])
    ]
    return [name for name in names if isinstance(name, str)]
