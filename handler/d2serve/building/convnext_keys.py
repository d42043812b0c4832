"""Keys of ConvNeXt backbones (github.com/facebookresearch/ConvNeXt, ALDI)."""

from typing import Any

from d2serve.building.extension import Extension
from d2serve.building.key_types import Key, is_integer, is_list, number, sizes_per_stage

CONVNEXT_BACKBONES = ("build_convnext_backbone", "build_convnext_fpn_backbone")


def _are_stages(value: Any) -> bool:
    stages = [0, 1, 2, 3]
    return is_list(value) and len(value) > 0 and all(is_integer(n) and n in stages for n in value)


def _stages(default: list[int]) -> Key:
    return Key(default, _are_stages, "a list of stages from 0 to 3")


CONVNEXT = Extension(
    markers=("MODEL.BACKBONE.NAME=build_convnext_*backbone",),
    keys={
        "MODEL.CONVNEXT.DEPTHS": sizes_per_stage([3, 3, 9, 3]),
        "MODEL.CONVNEXT.DIMS": sizes_per_stage([96, 192, 384, 768], maximum=8192),
        "MODEL.CONVNEXT.LAYER_SCALE_INIT_VALUE": number(1e-6),
        "MODEL.CONVNEXT.OUT_FEATURES": _stages([0, 1, 2, 3]),
        # Feature maps have numbers instead of names.
        "MODEL.FPN.IN_FEATURES": _stages([]),
    },
    values={"MODEL.BACKBONE.NAME": CONVNEXT_BACKBONES},
    ignored=("MODEL.CONVNEXT.DROP_PATH_RATE", "MODEL.CONVNEXT.OUT_FEATURE_INDICES"),
)
