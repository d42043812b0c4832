"""Projects on top of Detectron2 whose backbone or decoder is a transformer."""

from d2serve.building.projects import Project, ProjectModel

ARCHITECTURE = "MODEL.META_ARCHITECTURE"
BACKBONE = "MODEL.BACKBONE.NAME"
SEMANTIC = "MODEL.SEM_SEG_HEAD"
MASK_FORMER = (
    "INPUT.DATASET_MAPPER_NAME",
    "INPUT.SIZE_DIVISIBILITY",
    "MODEL.MASK_FORMER.*",
    f"{SEMANTIC}.MASK_DIM",
    f"{SEMANTIC}.PIXEL_DECODER_NAME",
    f"{SEMANTIC}.TRANSFORMER_ENC_LAYERS",
    "MODEL.SWIN.*",
    f"{BACKBONE}=D2SwinTransformer",
    f"{SEMANTIC}.NAME=MaskFormerHead",
)


def _single(name: str, source: str, keys: tuple[str, ...], *classes: str) -> Project:
    """A project of one network, which has the project's name."""
    return Project(name, source, keys, (ProjectModel(name, classes),) if classes else ())


# Among projects with the same keys the first is named.
TRANSFORMER_PROJECTS = (
    Project(
        "Mask2Former",
        "github.com/facebookresearch/Mask2Former",
        (
            *MASK_FORMER,
            "INPUT.AUGMENTATIONS",
            "INPUT.IMAGE_SIZE",
            "INPUT.M[AI][XN]_SCALE",
            f"{SEMANTIC}.DEFORMABLE_TRANSFORMER_ENCODER_*",
            f"{SEMANTIC}.PIXEL_DECODER_NAME=MSDeformAttnPixelDecoder",
        ),
        (
            ProjectModel("VideoMaskFormer", (f"{ARCHITECTURE}=VideoMaskFormer",)),
            ProjectModel("a variant", (f"{ARCHITECTURE}=MaskFormer?*",)),
            ProjectModel("Mask2Former", (f"{ARCHITECTURE}=MaskFormer",), supported=True),
        ),
    ),
    Project(
        "MaskFormer",
        "github.com/facebookresearch/MaskFormer",
        (
            *MASK_FORMER,
            "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE=res5",
            "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE=transformer_encoder",
        ),
        (
            ProjectModel("the per-pixel baseline", (f"{SEMANTIC}.NAME=PerPixelBaseline*",)),
            ProjectModel("MaskFormer", (f"{ARCHITECTURE}=MaskFormer",), supported=True),
        ),
    ),
    _single(
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
        f"{ARCHITECTURE}=OneFormer",
        f"{SEMANTIC}.NAME=OneFormerHead",
        f"{BACKBONE}=D2DiNAT",
    ),
    _single(
        "SAN",
        "github.com/MendelXu/SAN",
        ("MODEL.SAN.*", "MODEL.SIDE_ADAPTER.*"),
        f"{ARCHITECTURE}=SAN",
    ),
    _single(
        "OVSeg",
        "github.com/facebookresearch/ov-seg",
        ("MODEL.CLIP_ADAPTER.*",),
        f"{ARCHITECTURE}=OVSeg*",
        f"{SEMANTIC}.NAME=OpenVocabMaskFormerHead",
    ),
    _single("VITA", "github.com/sukjunhwang/VITA", ("MODEL.VITA.*",), f"{ARCHITECTURE}=Vita"),
    _single("IFC", "github.com/sukjunhwang/IFC", ("MODEL.IFC.*",), f"{ARCHITECTURE}=Ifc"),
    _single(
        "Mask DINO",
        "github.com/IDEA-Research/MaskDINO",
        ("MODEL.MaskDINO.*",),
        f"{ARCHITECTURE}=MaskDINO",
        f"{SEMANTIC}.NAME=MaskDINOHead",
    ),
    _single(
        "FC-CLIP",
        "github.com/bytedance/fc-clip",
        ("MODEL.FC_CLIP.*",),
        f"{ARCHITECTURE}=FCCLIP",
        f"{SEMANTIC}.NAME=FCCLIPHead",
    ),
    _single(
        "FastInst",
        "github.com/junjiehe96/FastInst",
        ("MODEL.FASTINST.*",),
        f"{ARCHITECTURE}=FastInst",
    ),
    _single("DETR", "github.com/facebookresearch/detr", ("MODEL.DETR.*",), f"{ARCHITECTURE}=Detr"),
    _single(
        "DeepSolo",
        "github.com/ViTAE-Transformer/DeepSolo",
        ("MODEL.ViTAEv2.*", "MODEL.TRANSFORMER.*"),
        f"{ARCHITECTURE}=TransformerPureDetector",
    ),
    _single(
        "TESTR",
        "github.com/mlpc-ucsd/TESTR",
        ("MODEL.TRANSFORMER.*",),
        f"{ARCHITECTURE}=TransformerDetector",
    ),
    Project(
        "DiT or LayoutLMv3",
        "github.com/microsoft/unilm",
        ("AUG.DETR", "CACHE_DIR", "MODEL.IMAGE_ONLY", "MODEL.VIT.*", "PUBLAYNET_DATA_DIR_*"),
        (
            ProjectModel(
                "LayoutLMv3",
                (f"{ARCHITECTURE}=VLGeneralizedRCNN", "MODEL.VIT.NAME=layoutlmv3_*"),
            ),
            ProjectModel("DiT", (f"{BACKBONE}=build_vit_fpn_backbone",), supported=True),
        ),
    ),
    _single(
        "MPViT",
        "github.com/youngwanLEE/MPViT",
        ("AUG.DETR", "MODEL.MPVIT.*"),
        f"{BACKBONE}=build_*mpvit_fpn_backbone",
    ),
    Project(
        "SwinT_detectron2",
        "github.com/xiaohu2015/SwinT_detectron2",
        ("MODEL.SWINT.*",),
        (ProjectModel("Swin", (f"{BACKBONE}=build_*swint_*backbone",), supported=True),),
    ),
    _single(
        "Sparse R-CNN",
        "github.com/PeizeSun/SparseR-CNN",
        ("MODEL.SparseRCNN.*",),
        f"{ARCHITECTURE}=SparseRCNN",
    ),
    _single(
        "DiffusionDet",
        "github.com/ShoufaChen/DiffusionDet",
        ("MODEL.DiffusionDet.*", "MODEL.SWIN.*"),
        f"{ARCHITECTURE}=DiffusionDet",
    ),
    Project(
        "ALDI",
        "github.com/justinkay/aldi",
        ("AUG.*", "DOMAIN_ADAPT.*", "EMA.*", "VIT.USE_ACT_CHECKPOINT"),
        (
            ProjectModel("Deformable DETR", (f"{ARCHITECTURE}=DeformableDETR",)),
            ProjectModel("YOLO", (f"{ARCHITECTURE}=Yolo*",)),
            ProjectModel("ViTDet", (f"{BACKBONE}=build_vitdet_*_backbone",)),
        ),
    ),
)
