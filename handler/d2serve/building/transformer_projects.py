"""Projects on top of Detectron2 whose backbone or decoder is a transformer."""

from d2serve.building.projects import Project

# Among projects with the same keys the first is named.
TRANSFORMER_PROJECTS = (
    Project(
        "Mask2Former",
        "github.com/facebookresearch/Mask2Former",
        (
            "INPUT.AUGMENTATIONS",
            "INPUT.DATASET_MAPPER_NAME",
            "INPUT.IMAGE_SIZE",
            "INPUT.M[AI][XN]_SCALE",
            "INPUT.SIZE_DIVISIBILITY",
            "MODEL.MASK_FORMER.*",
            "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_*",
            "MODEL.SEM_SEG_HEAD.MASK_DIM",
            "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME",
            "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS",
            "MODEL.SWIN.*",
            "MODEL.BACKBONE.NAME=D2SwinTransformer",
            "MODEL.META_ARCHITECTURE=MaskFormer",
            "MODEL.META_ARCHITECTURE=VideoMaskFormer",
            "MODEL.SEM_SEG_HEAD.NAME=MaskFormerHead",
        ),
    ),
    Project(
        "OneFormer",
        "github.com/SHI-Labs/OneFormer",
        (
            "INPUT.*_SEQ_LEN",
            "INPUT.TASK_PROB.*",
            "MODEL.DiNAT.*",
            "MODEL.ONE_FORMER.*",
            "MODEL.TEST.*",
            "MODEL.TEXT_ENCODER.*",
        ),
    ),
    Project("SAN", "github.com/MendelXu/SAN", ("MODEL.SAN.*", "MODEL.SIDE_ADAPTER.*")),
    Project("OVSeg", "github.com/facebookresearch/ov-seg", ("MODEL.CLIP_ADAPTER.*",)),
    Project("VITA", "github.com/sukjunhwang/VITA", ("MODEL.VITA.*",)),
    Project(
        "SparseInst", "github.com/hustvl/SparseInst", ("MODEL.CSPNET.*", "MODEL.SPARSE_INST.*")
    ),
    Project("Mask DINO", "github.com/IDEA-Research/MaskDINO", ("MODEL.MaskDINO.*",)),
    Project("FC-CLIP", "github.com/bytedance/fc-clip", ("MODEL.FC_CLIP.*",)),
    Project("FastInst", "github.com/junjiehe96/FastInst", ("MODEL.FASTINST.*",)),
    Project("DETR", "github.com/facebookresearch/detr", ("MODEL.DETR.*",)),
    Project(
        "DiT or LayoutLMv3",
        "github.com/microsoft/unilm",
        (
            "AUG.DETR",
            "CACHE_DIR",
            "MODEL.IMAGE_ONLY",
            "MODEL.VIT.*",
            "PUBLAYNET_DATA_DIR_*",
            "MODEL.BACKBONE.NAME=build_vit_fpn_backbone",
        ),
    ),
    Project(
        "MPViT",
        "github.com/youngwanLEE/MPViT",
        ("AUG.DETR", "MODEL.MPVIT.*", "MODEL.BACKBONE.NAME=build_*mpvit_fpn_backbone"),
    ),
    Project(
        "SwinT_detectron2",
        "github.com/xiaohu2015/SwinT_detectron2",
        ("MODEL.SWINT.*", "MODEL.BACKBONE.NAME=build_*swint_fpn_backbone"),
    ),
    Project("Sparse R-CNN", "github.com/PeizeSun/SparseR-CNN", ("MODEL.SparseRCNN.*",)),
    Project(
        "DiffusionDet",
        "github.com/ShoufaChen/DiffusionDet",
        ("MODEL.DiffusionDet.*", "MODEL.SWIN.*", "MODEL.META_ARCHITECTURE=DiffusionDet"),
    ),
)
