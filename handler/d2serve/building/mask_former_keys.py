"""Keys of MaskFormer and Mask2Former."""

from d2serve.building.config_keys import MAX_LAYERS
from d2serve.building.extension import Extension
from d2serve.building.key_types import flag, indices, integer, names, number, one_of
from d2serve.model.backbone_config import STAGES
from d2serve.model.mask_former_config import (
    EMBEDDING,
    ENCODED,
    MASKED_DECODER,
    MULTI_SCALE,
    STANDARD_DECODER,
)

HEAD = "MODEL.SEM_SEG_HEAD"
QUERIES = "MODEL.MASK_FORMER"
TEST = f"{QUERIES}.TEST"
FPN_DECODER = "BasePixelDecoder"
ENCODER_DECODER = "TransformerEncoderPixelDecoder"
DEFORMABLE_DECODER = "MSDeformAttnPixelDecoder"
ENCODED_FEATURES = f"{HEAD}.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES"
# d2serve's own key: neither project names the things in its config.
THINGS = f"{TEST}.THINGS"
DECODER = f"{QUERIES}.TRANSFORMER_DECODER_NAME"
OUTPUTS = tuple(f"{TEST}.{kind}_ON" for kind in ("INSTANCE", "SEMANTIC", "PANOPTIC"))
# Keys that only configs of Mask2Former have.
OF_MASK2FORMER = (
    DECODER,
    ENCODED_FEATURES,
    *OUTPUTS[:2],
    f"{QUERIES}.CLASS_WEIGHT",
    f"{QUERIES}.IMPORTANCE_SAMPLE_RATIO",
    f"{QUERIES}.OVERSAMPLE_RATIO",
    f"{QUERIES}.TRAIN_NUM_POINTS",
)
TRAINING = (
    "INPUT.COLOR_AUG_SSD",
    "INPUT.DATASET_MAPPER_NAME",
    "INPUT.IMAGE_SIZE",
    "INPUT.MAX_SCALE",
    "INPUT.MIN_SCALE",
    "INPUT.SIZE_DIVISIBILITY",
    *OF_MASK2FORMER[4:],
    *(
        f"{QUERIES}.{name}"
        for name in ("DEEP_SUPERVISION", "DICE_WEIGHT", "DROPOUT", "MASK_WEIGHT")
    ),
    f"{QUERIES}.NO_OBJECT_WEIGHT",
)
# Of DeepLab, whose keys these projects' configs have too, and of no class that they use.
UNUSED = (
    *(f"MODEL.RESNETS.{name}" for name in ("RES4_DILATION", "RES5_MULTI_GRID", "STEM_TYPE")),
    *(f"{HEAD}.ASPP_{name}" for name in ("CHANNELS", "DILATIONS", "DROPOUT")),
    *(f"{HEAD}.DEFORMABLE_TRANSFORMER_ENCODER_N_{name}" for name in ("HEADS", "POINTS")),
    *(f"{HEAD}.PROJECT_{name}" for name in ("CHANNELS", "FEATURES")),
    f"{HEAD}.LOSS_TYPE",
    f"{HEAD}.USE_DEPTHWISE_SEPARABLE_CONV",
)
MASK_FORMER = Extension(
    markers=("MODEL.META_ARCHITECTURE=MaskFormer",),
    keys={
        f"{HEAD}.MASK_DIM": integer(256, 1),
        f"{HEAD}.PIXEL_DECODER_NAME": one_of(FPN_DECODER, ENCODER_DECODER, DEFORMABLE_DECODER),
        f"{HEAD}.TRANSFORMER_ENC_LAYERS": integer(0, 0, MAX_LAYERS),
        ENCODED_FEATURES: names(["res3", "res4", "res5"]),
        f"{QUERIES}.NHEADS": integer(8, 1),
        f"{QUERIES}.DIM_FEEDFORWARD": integer(2048, 1),
        f"{QUERIES}.ENC_LAYERS": integer(0, 0, MAX_LAYERS),
        f"{QUERIES}.DEC_LAYERS": integer(6, 1, MAX_LAYERS),
        f"{QUERIES}.PRE_NORM": flag(False),
        f"{QUERIES}.HIDDEN_DIM": integer(256, 1),
        f"{QUERIES}.NUM_OBJECT_QUERIES": integer(100, 1),
        f"{QUERIES}.TRANSFORMER_IN_FEATURE": one_of(*STAGES[::-1], ENCODED, EMBEDDING, MULTI_SCALE),
        f"{QUERIES}.ENFORCE_INPUT_PROJ": flag(False),
        f"{QUERIES}.SIZE_DIVISIBILITY": integer(32),
        DECODER: one_of(MASKED_DECODER, STANDARD_DECODER),
        f"{TEST}.INSTANCE_ON": flag(False),
        f"{TEST}.SEMANTIC_ON": flag(True),
        f"{TEST}.PANOPTIC_ON": flag(False),
        f"{TEST}.OBJECT_MASK_THRESHOLD": number(0.0),
        f"{TEST}.OVERLAP_THRESHOLD": number(0.0),
        f"{TEST}.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": flag(False),
        THINGS: indices(),
    },
    values={
        "MODEL.META_ARCHITECTURE": ("MaskFormer",),
        f"{HEAD}.NAME": ("MaskFormerHead",),
    },
    ignored=(*TRAINING, *UNUSED),
)
