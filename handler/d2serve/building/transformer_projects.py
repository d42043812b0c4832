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
DIT = (
    "AUG.DETR",
    "MODEL.VIT.DROP_PATH",
    "MODEL.VIT.IMG_SIZE",
    "MODEL.VIT.MODEL_KWARGS",
    "MODEL.VIT.NAME",
    "MODEL.VIT.OUT_FEATURES",
    "MODEL.VIT.POS_TYPE",
)


def _single(name: str, source: str, keys: tuple[str, ...], *classes: str) -> Project:
    """A project of one network, which has the project's name."""
    return Project(name, source, keys, (ProjectModel(name, classes),) if classes else ())


# Among projects with the same keys the first is named.
TRANSFORMER_PROJECTS = (
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
    _single(
        "ZegFormer",
        "github.com/dingjiansw101/ZegFormer",
        (
            *MASK_FORMER,
            "MODEL.PROMPT_ENSEMBLE*",
            f"{SEMANTIC}.CLIP_*",
            f"{SEMANTIC}.T*_CLASS_JSON",
        ),
        f"{SEMANTIC}.NAME=ZegFormerHead",
    ),
    _single("VITA", "github.com/sukjunhwang/VITA", ("MODEL.VITA.*",), f"{ARCHITECTURE}=Vita"),
    _single("IFC", "github.com/sukjunhwang/IFC", ("MODEL.IFC.*",), f"{ARCHITECTURE}=Ifc"),
    Project(
        "Mask DINO",
        "github.com/IDEA-Research/MaskDINO",
        ("Default_loading", "MODEL.MaskDINO.*", "TEST.EVAL_FLAG"),
        (
            ProjectModel("FocalNet", (f"{BACKBONE}=D2FocalNet",)),
            ProjectModel("a variant", (f"{ARCHITECTURE}=MaskDINO?*",)),
            ProjectModel(
                "Mask DINO",
                (f"{ARCHITECTURE}=MaskDINO", f"{SEMANTIC}.NAME=MaskDINOHead"),
                supported=True,
            ),
        ),
    ),
    Project(
        "DI-MaskDINO",
        "github.com/CQU-ADHRI-Lab/DI-MaskDINO",
        ("MODEL.MaskDINO.*", f"{ARCHITECTURE}=MaskDINO", f"{SEMANTIC}.NAME=MaskDINOHead"),
        (
            ProjectModel(
                "DI-MaskDINO",
                (
                    "MODEL.MaskDINO.FIRST_SELECTED_QUERIES",
                    "MODEL.MaskDINO.TRANSFORMER_DECODER_NAME=DIMaskDINODecoder",
                ),
            ),
        ),
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
        (*DIT, "CACHE_DIR", "MODEL.CONFIG_PATH", "MODEL.IMAGE_ONLY", "*_DATA_DIR_T*"),
        (
            ProjectModel(
                "LayoutLMv3",
                (f"{ARCHITECTURE}=VLGeneralizedRCNN", "MODEL.VIT.NAME=layoutlmv3_*"),
            ),
            ProjectModel("DiT", (f"{BACKBONE}=build_vit_fpn_backbone",), supported=True),
        ),
    ),
    _single(
        "VGT",
        "github.com/AlibabaResearch/AdvancedLiterateMachinery",
        (*DIT, "MODEL.VIT.MERGE_TYPE", "MODEL.WORDGRID.*"),
        f"{ARCHITECTURE}=VGT",
        f"{BACKBONE}=build_VGT_fpn_backbone",
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
    Project(
        "Sparse R-CNN",
        "github.com/PeizeSun/SparseR-CNN",
        ("MODEL.SparseRCNN.*",),
        (ProjectModel("Sparse R-CNN", (f"{ARCHITECTURE}=SparseRCNN",), supported=True),),
    ),
    _single(
        "DiffusionDet",
        "github.com/ShoufaChen/DiffusionDet",
        ("MODEL.DiffusionDet.*", "MODEL.SWIN.*"),
        f"{ARCHITECTURE}=DiffusionDet",
    ),
    _single(
        "FSDiffusionDet",
        "github.com/pierlj/FSDiffusionDet",
        ("FEWSHOT.*", "FINETUNE.*", "MODEL.DiffusionDet.*", "MODEL.SWIN.*", "TRAIN_MODE"),
        f"{ARCHITECTURE}=FSDiffusionDet",
        "FEWSHOT.*",
    ),
    _single(
        "DiffusionInst",
        "github.com/chenhaoxing/DiffusionInst",
        ("MODEL.DiffusionInst.*", "MODEL.SWIN.*"),
        f"{ARCHITECTURE}=DiffusionInst",
    ),
    _single(
        "ISTR",
        "github.com/hujiecpp/ISTR",
        ("MODEL.ISTR.*", "MODEL.SWINT.*"),
        f"{ARCHITECTURE}=ISTR",
    ),
    _single(
        "OneNet",
        "github.com/PeizeSun/OneNet",
        ("MODEL.OneNet.*",),
        f"{ARCHITECTURE}=OneNet",
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
