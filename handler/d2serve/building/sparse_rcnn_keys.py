"""Keys of Sparse R-CNN."""

from d2serve.building.config_keys import MAX_LAYERS
from d2serve.building.extension import Extension
from d2serve.building.key_types import flag, integer, one_of, only

SECTION = "MODEL.SparseRCNN"
ARCHITECTURE = "SparseRCNN"
TRAINING = (
    "ALPHA",
    "CLASS_WEIGHT",
    "DEEP_SUPERVISION",
    "DROPOUT",
    "GAMMA",
    "GIOU_WEIGHT",
    "L1_WEIGHT",
    "NO_OBJECT_WEIGHT",
    "PRIOR_PROB",
)
SPARSE_RCNN = Extension(
    markers=(f"MODEL.META_ARCHITECTURE={ARCHITECTURE}",),
    keys={
        f"{SECTION}.NUM_CLASSES": integer(80, 1),
        f"{SECTION}.NUM_PROPOSALS": integer(300, 1),
        f"{SECTION}.NHEADS": integer(8, 1),
        f"{SECTION}.DIM_FEEDFORWARD": integer(2048, 1),
        f"{SECTION}.ACTIVATION": one_of("relu", "gelu"),
        f"{SECTION}.HIDDEN_DIM": integer(256, 1),
        f"{SECTION}.NUM_CLS": integer(1, 0, MAX_LAYERS),
        f"{SECTION}.NUM_REG": integer(3, 0, MAX_LAYERS),
        f"{SECTION}.NUM_HEADS": integer(6, 1, MAX_LAYERS),
        # The project's network has two layers of a proposal in any case.
        f"{SECTION}.NUM_DYNAMIC": only(2),
        f"{SECTION}.DIM_DYNAMIC": integer(64, 1),
        f"{SECTION}.USE_FOCAL": flag(True),
    },
    values={"MODEL.META_ARCHITECTURE": (ARCHITECTURE,)},
    ignored=tuple(f"{SECTION}.{name}" for name in TRAINING),
)
