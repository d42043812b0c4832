"""Keys of the ResNet of Detectron2's project DeepLab."""

from d2serve.building.extension import Extension
from d2serve.building.key_types import one_of, sizes_per_stage

DEEPLAB_RESNET = "build_resnet_deeplab_backbone"
STEM_TYPE, DEEPLAB_STEM = "MODEL.RESNETS.STEM_TYPE", "deeplab"
RES4_DILATION = "MODEL.RESNETS.RES4_DILATION"
RES5_DILATION = "MODEL.RESNETS.RES5_DILATION"
MULTI_GRID = "MODEL.RESNETS.RES5_MULTI_GRID"
DEEPLAB = Extension(
    markers=(f"MODEL.BACKBONE.NAME={DEEPLAB_RESNET}",),
    keys={
        STEM_TYPE: one_of(DEEPLAB_STEM, "basic"),
        RES4_DILATION: one_of(1, 2),
        RES5_DILATION: one_of(1, 2, 4),
        # A factor for each block; res5 has three blocks at all depths.
        MULTI_GRID: sizes_per_stage([1, 2, 4]),
    },
    values={"MODEL.BACKBONE.NAME": (DEEPLAB_RESNET,)},
    # Of the project's own heads, which are not supported.
    ignored=tuple(
        f"MODEL.SEM_SEG_HEAD.{name}"
        for name in (
            "ASPP_CHANNELS",
            "ASPP_DILATIONS",
            "ASPP_DROPOUT",
            "LOSS_TYPE",
            "PROJECT_CHANNELS",
            "PROJECT_FEATURES",
            "USE_DEPTHWISE_SEPARABLE_CONV",
        )
    ),
)
