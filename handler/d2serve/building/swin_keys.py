"""Keys of Swin Transformers in configs of several projects.

Mask2Former and MaskFormer (D2SwinTransformer), Detic and DiffusionDet
(build_swintransformer_fpn_backbone), SwinT_detectron2 (build_swint_fpn_backbone).
"""

from typing import Any

from d2serve.building.extension import Extension
from d2serve.building.key_types import (
    Key,
    flag,
    integer,
    is_integer,
    is_list,
    is_number,
    names,
    one_of,
    sizes_per_stage,
)

D2_SWIN = "D2SwinTransformer"
SWINT_BACKBONES = (
    "build_swint_backbone",
    "build_swint_fpn_backbone",
    "build_retinanet_swint_fpn_backbone",
)
SIZED_BACKBONES = ("build_swintransformer_backbone", "build_swintransformer_fpn_backbone")
SWIN_BACKBONES = (D2_SWIN, *SWINT_BACKBONES, *SIZED_BACKBONES)
RATIO = Key(4.0, lambda value: is_number(value) and value > 0, "a number above 0")


def _are_features(value: Any) -> bool:
    return is_list(value) and all(
        isinstance(item, str) or (is_integer(item) and 0 <= item < 4) for item in value
    )


SWIN = Extension(
    markers=(
        "MODEL.SWIN.*",
        f"MODEL.BACKBONE.NAME={D2_SWIN}",
        "MODEL.BACKBONE.NAME=build_swintransformer_*backbone",
    ),
    keys={
        "MODEL.SWIN.SIZE": one_of("B", "T", "S", "B-22k", "B-22k-384", "L-22k", "L-22k-384"),
        "MODEL.SWIN.PRETRAIN_IMG_SIZE": integer(224, 1),
        "MODEL.SWIN.PATCH_SIZE": one_of(4, 1, 2, 8, 16),
        "MODEL.SWIN.EMBED_DIM": integer(96, 1),
        "MODEL.SWIN.DEPTHS": sizes_per_stage([2, 2, 6, 2]),
        "MODEL.SWIN.NUM_HEADS": sizes_per_stage([3, 6, 12, 24]),
        "MODEL.SWIN.WINDOW_SIZE": integer(7, 1, 64),
        "MODEL.SWIN.MLP_RATIO": RATIO,
        "MODEL.SWIN.QKV_BIAS": flag(True),
        "MODEL.SWIN.QK_SCALE": Key(
            None, lambda value: value is None or RATIO.check(value), "None or a number above 0"
        ),
        "MODEL.SWIN.APE": flag(False),
        "MODEL.SWIN.PATCH_NORM": flag(True),
        "MODEL.SWIN.OUT_FEATURES": Key(
            [], _are_features, "a list of names of feature maps, or of stages from 0 to 3"
        ),
    },
    values={"MODEL.BACKBONE.NAME": (D2_SWIN, *SIZED_BACKBONES)},
    ignored=(
        "MODEL.SWIN.ATTN_DROP_RATE",
        "MODEL.SWIN.DROP_PATH_RATE",
        "MODEL.SWIN.DROP_RATE",
        "MODEL.SWIN.USE_CHECKPOINT",
    ),
)
SWINT = Extension(
    markers=("MODEL.SWINT.*", "MODEL.BACKBONE.NAME=build_*swint_*backbone"),
    keys={
        "MODEL.SWINT.EMBED_DIM": integer(96, 1),
        "MODEL.SWINT.DEPTHS": sizes_per_stage([2, 2, 6, 2]),
        "MODEL.SWINT.NUM_HEADS": sizes_per_stage([3, 6, 12, 24]),
        "MODEL.SWINT.WINDOW_SIZE": integer(7, 1, 64),
        "MODEL.SWINT.MLP_RATIO": RATIO,
        "MODEL.SWINT.APE": flag(False),
        "MODEL.SWINT.OUT_FEATURES": names(["stage2", "stage3", "stage4", "stage5"]),
        "MODEL.FPN.TOP_LEVELS": one_of(2, 0, 1),
    },
    values={"MODEL.BACKBONE.NAME": SWINT_BACKBONES},
    ignored=("MODEL.SWINT.DROP_PATH_RATE",),
)
