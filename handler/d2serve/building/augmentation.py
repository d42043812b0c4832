"""Read the keys of test-time augmentation, which an option of the build turns on."""

from collections.abc import Mapping
from typing import Any

from d2serve.building.config_values import ConfigValues, flatten
from d2serve.building.key_types import Key, flag, integer, is_integer, is_list
from d2serve.model.augmentation_config import AugmentationConfig
from d2serve.model.config import Family, RCNNConfig

ENABLED = "TEST.AUG.ENABLED"
OPTION = "--augment"
# Detectron2's defaults.
MIN_SIZES = [400, 500, 600, 700, 800, 900, 1000, 1100, 1200]
MAX_SIZE = 4000
# More would take hours.
MAX_VERSIONS = 100
ARCHITECTURE, KEYPOINTS = "MODEL.META_ARCHITECTURE", "MODEL.KEYPOINT_ON"
HEADS, DENSEPOSE = "MODEL.ROI_HEADS.NAME", "MODEL.DENSEPOSE_ON"


def read_augmentation(values: ConfigValues, family: Family) -> AugmentationConfig:
    """Read TEST.AUG; problems are recorded in `values`.

    Args:
        values: of the config; TEST.AUG.ENABLED does not count.
        family: of the config; only networks with box and mask heads are supported.
    """
    _check_family(values, family)
    return AugmentationConfig(
        min_sizes=tuple(values.optional("TEST.AUG.MIN_SIZES", _sizes())),
        max_size=values.optional("TEST.AUG.MAX_SIZE", integer(MAX_SIZE, 1)),
        flip=values.optional("TEST.AUG.FLIP", flag(True)),
    )


def is_enabled(explicit: Mapping[str, Any]) -> bool:
    """Return whether a config asks Detectron2's evaluation for augmentation."""
    return dict(flatten(dict(explicit))).get(ENABLED) is True


def describe(config: AugmentationConfig) -> str:
    """Describe the versions of an image in one line."""
    sizes = ", ".join(map(str, config.min_sizes))
    flipped = ", each flipped too" if config.flip else ""
    count = len(config.min_sizes) * config.per_size
    return f"augmentation: {count} forward passes per image, shorter sides {sizes}{flipped}"


def _check_family(values: ConfigValues, family: Family) -> None:
    if not isinstance(family, RCNNConfig):
        name = HEADS if values[ARCHITECTURE] == "GeneralizedRCNN" else ARCHITECTURE
        supported = "StandardROIHeads, CascadeROIHeads or Res5ROIHeads of a GeneralizedRCNN"
        values.add_conflict(name, f"{OPTION} requires {supported}, as in Detectron2")
    elif family.roi_heads.keypoint is not None:
        values.add_conflict(KEYPOINTS, f"{OPTION} does not support keypoints, as in Detectron2")
    elif family.roi_heads.densepose is not None:
        values.add_conflict(DENSEPOSE, f"{OPTION} supports only box and mask heads")


def _sizes() -> Key:
    def check(value: Any) -> bool:
        return (
            is_list(value)
            and 0 < len(value) <= MAX_VERSIONS
            and all(is_integer(item) and item >= 0 for item in value)
        )

    return Key(MIN_SIZES, check, f"a list of 1 to {MAX_VERSIONS} integers of at least 0")
