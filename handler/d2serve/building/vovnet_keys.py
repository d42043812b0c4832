"""Keys of VoVNet backbones (vovnet-detectron2, CenterMask2, AdelaiDet)."""

from d2serve.building.config_keys import BATCH_NORMS
from d2serve.building.extension import Extension
from d2serve.building.key_types import flag, flags, integer, names, one_of

VOVNET_BACKBONES = ("build_vovnet_backbone", "build_vovnet_fpn_backbone")
FCOS_VOVNET = "build_fcos_vovnet_fpn_backbone"
VOVNET = Extension(
    markers=("MODEL.VOVNET.*", "MODEL.BACKBONE.NAME=build_*vovnet_*backbone"),
    keys={
        "MODEL.VOVNET.CONV_BODY": one_of(
            "V-39-eSE",
            "V-19-slim-dw-eSE",
            "V-19-dw-eSE",
            "V-19-slim-eSE",
            "V-19-eSE",
            "V-57-eSE",
            "V-99-eSE",
        ),
        "MODEL.VOVNET.OUT_FEATURES": names(["stage2", "stage3", "stage4", "stage5"]),
        "MODEL.VOVNET.NORM": one_of("FrozenBN", *BATCH_NORMS, "GN", "LN"),
        "MODEL.VOVNET.STAGE_WITH_DCN": flags([False] * 4),
        "MODEL.VOVNET.WITH_MODULATED_DCN": flag(False),
        "MODEL.VOVNET.DEFORMABLE_GROUPS": integer(1, 1),
    },
    values={"MODEL.BACKBONE.NAME": VOVNET_BACKBONES},
    # No network of the three projects reads these.
    ignored=("MODEL.VOVNET.OUT_CHANNELS", "MODEL.VOVNET.BACKBONE_OUT_CHANNELS"),
)
