"""Keys of Mask DINO."""

from d2serve.building.config_keys import MAX_LAYERS
from d2serve.building.extension import Extension
from d2serve.building.key_types import flag, indices, integer, names, number, one_of, only
from d2serve.building.mask_former_keys import ENCODED_FEATURES, HEAD, UNUSED
from d2serve.model.mask_dino_config import PIXEL_BOXES, PREDICTED_BOXES, TIGHT_BOXES

DINO = "MODEL.MaskDINO"
TEST = f"{DINO}.TEST"
HIDDEN_DIM = 256
COARSEST_FIRST, FINEST_FIRST = "high2low", "low2high"
TRAINING = (
    "Default_loading",
    "INPUT.COLOR_AUG_SSD",
    "INPUT.DATASET_MAPPER_NAME",
    "INPUT.IMAGE_SIZE",
    "INPUT.MAX_SCALE",
    "INPUT.MIN_SCALE",
    "INPUT.SIZE_DIVISIBILITY",
    *(f"{DINO}.{loss}_WEIGHT" for loss in ("BOX", "CLASS", "DICE", "GIOU", "MASK", "NO_OBJECT")),
    *(f"{DINO}.COST_{cost}_WEIGHT" for cost in ("BOX", "CLASS", "DICE", "GIOU", "MASK")),
    *(f"{DINO}.{name}" for name in ("DN", "DN_NOISE_SCALE", "DN_NUM", "DROPOUT")),
    *(f"{DINO}.{name}" for name in ("BOX_LOSS", "DEEP_SUPERVISION", "PANO_BOX_LOSS")),
    *(f"{DINO}.{name}" for name in ("IMPORTANCE_SAMPLE_RATIO", "OVERSAMPLE_RATIO")),
    f"{DINO}.TRAIN_NUM_POINTS",
)
# The project defines these, and no class of it reads them.
UNREAD = (
    *(f"{DINO}.{name}" for name in ("ENC_LAYERS", "EVAL_FLAG", "PRED_CONV", "PRE_NORM")),
    f"{HEAD}.NUM_FEATURE_LEVELS",
    "TEST.EVAL_FLAG",
)
MASK_DINO = Extension(
    markers=("MODEL.META_ARCHITECTURE=MaskDINO",),
    keys={
        f"{HEAD}.MASK_DIM": integer(256, 1),
        f"{HEAD}.PIXEL_DECODER_NAME": only("MaskDINOEncoder"),
        f"{HEAD}.TRANSFORMER_ENC_LAYERS": integer(0, 0, MAX_LAYERS),
        f"{HEAD}.DIM_FEEDFORWARD": integer(1024, 1),
        f"{HEAD}.TOTAL_NUM_FEATURE_LEVELS": integer(4, 1, 8),
        f"{HEAD}.FEATURE_ORDER": one_of(COARSEST_FIRST, FINEST_FIRST),
        ENCODED_FEATURES: names(["res3", "res4", "res5"]),
        f"{DINO}.TRANSFORMER_DECODER_NAME": only("MaskDINODecoder"),
        f"{DINO}.NHEADS": integer(8, 1),
        f"{DINO}.DIM_FEEDFORWARD": integer(2048, 1),
        f"{DINO}.DEC_LAYERS": integer(6, 1, MAX_LAYERS),
        f"{DINO}.HIDDEN_DIM": only(HIDDEN_DIM),
        f"{DINO}.NUM_OBJECT_QUERIES": integer(100, 1),
        f"{DINO}.ENFORCE_INPUT_PROJ": flag(False),
        f"{DINO}.TWO_STAGE": flag(True),
        f"{DINO}.LEARN_TGT": flag(False),
        f"{DINO}.INITIAL_PRED": flag(True),
        f"{DINO}.INITIALIZE_BOX_TYPE": one_of(PREDICTED_BOXES, TIGHT_BOXES, PIXEL_BOXES),
        f"{DINO}.SEMANTIC_CE_LOSS": flag(False),
        f"{DINO}.SIZE_DIVISIBILITY": integer(32),
        f"{TEST}.INSTANCE_ON": flag(False),
        f"{TEST}.SEMANTIC_ON": flag(True),
        f"{TEST}.PANOPTIC_ON": flag(False),
        f"{TEST}.TEST_FOUCUS_ON_BOX": flag(False),
        f"{TEST}.OBJECT_MASK_THRESHOLD": number(0.0),
        f"{TEST}.OVERLAP_THRESHOLD": number(0.0),
        f"{TEST}.PANO_TRANSFORM_EVAL": flag(True),
        f"{TEST}.PANO_TEMPERATURE": number(0.06),
        f"{TEST}.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": flag(False),
        # d2serve's own key: the project does not name the things in its config.
        f"{TEST}.THINGS": indices(),
    },
    values={
        "MODEL.META_ARCHITECTURE": ("MaskDINO",),
        f"{HEAD}.NAME": ("MaskDINOHead",),
    },
    ignored=(*TRAINING, *UNREAD, *UNUSED),
)
