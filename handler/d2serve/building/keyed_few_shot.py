"""Parts of few-shot detectors in a keyed config."""

from d2serve.building.config_values import ConfigValues
from d2serve.building.few_shot_keys import (
    COSINE_LAYERS,
    COSINE_SCALE,
    IMTFA_TESTS,
    OUTPUT_LAYER,
    PCB,
)
from d2serve.model.heads_config import CASCADE_HEADS, LEARNED_SCALE, STANDARD_HEADS

HEADS = "MODEL.ROI_HEADS.NAME"


def read_cosine_scale(values: ConfigValues, heads: str) -> float | None:
    """Read the scale of cosine similarities; None for linear scores.

    Args:
        values: the config.
        heads: the class of the ROI heads.
    """
    for name in IMTFA_TESTS:
        if values.knows(name):
            values[name]
    if not values.knows(OUTPUT_LAYER) or values[OUTPUT_LAYER] != COSINE_LAYERS:
        return None
    if heads == CASCADE_HEADS:
        values.add_conflict(OUTPUT_LAYER, f"has no effect on {CASCADE_HEADS} in its project")
    scale = float(values[COSINE_SCALE])
    return LEARNED_SCALE if scale == LEARNED_SCALE else scale


def read_decoupled(values: ConfigValues, section: str) -> bool:
    """Read whether the feature maps of the RPN or the ROI heads go through an affine layer first.

    Args:
        values: the config.
        section: `MODEL.RPN` or `MODEL.ROI_HEADS`.
    """
    name = f"{section}.ENABLE_DECOUPLE"
    if not values.knows(name):
        return False
    values[PCB]
    values[OUTPUT_LAYER]
    if values[HEADS] == STANDARD_HEADS:
        values.add_conflict(HEADS, "must be 'Res5ROIHeads': DeFRCN's others have two box heads")
    decoupled: bool = values[name]
    return decoupled
