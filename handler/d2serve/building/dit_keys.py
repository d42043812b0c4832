"""Keys of the Vision Transformers of DiT (github.com/microsoft/unilm)."""

from dataclasses import replace
from typing import Any

from d2serve.building.extension import Extension
from d2serve.building.key_types import Key, is_integer, is_list, names, one_of, only

DIT_BACKBONE = "build_vit_fpn_backbone"
PATCH_SIZE = 16
OTHERS = {
    "layoutlmv3_base": "LayoutLMv3 reads its text transformer's config from another file",
    "layoutlmv3_large": "LayoutLMv3 reads its text transformer's config from another file",
}


def _is_image_size(value: Any) -> bool:
    return (
        is_list(value)
        and len(value) == 2
        and all(is_integer(side) and side >= PATCH_SIZE for side in value)
    )


DIT = Extension(
    markers=("MODEL.VIT.*", f"MODEL.BACKBONE.NAME={DIT_BACKBONE}"),
    keys={
        "MODEL.VIT.NAME": replace(
            one_of(
                "dit_base_patch16", "dit_large_patch16", "beit_base_patch16", "beit_large_patch16"
            ),
            reasons=OTHERS,
        ),
        "MODEL.VIT.OUT_FEATURES": names(["layer3", "layer5", "layer7", "layer11"]),
        "MODEL.VIT.IMG_SIZE": Key(
            [224, 224], _is_image_size, f"a list of two integers of at least {PATCH_SIZE}"
        ),
        "MODEL.VIT.POS_TYPE": only("abs", "shared_rel"),
        "MODEL.VIT.MODEL_KWARGS": only("{}"),
    },
    values={"MODEL.BACKBONE.NAME": (DIT_BACKBONE,)},
    ignored=(
        "AUG",
        "CACHE_DIR",
        "MODEL.VIT.DROP_PATH",
        "PUBLAYNET_DATA_DIR_TEST",
        "PUBLAYNET_DATA_DIR_TRAIN",
    ),
)
