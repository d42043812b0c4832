"""The Detectron2 config of the shapes model."""

from detectron2.config import CfgNode, get_cfg

from models.shapes.training.outlines import CLASS_NAMES

INFORMATIVE_KEYS = frozenset(
    {
        "VERSION",
        "INPUT.FORMAT",
        "MODEL.META_ARCHITECTURE",
        "MODEL.PIXEL_MEAN",
        "MODEL.RESNETS.NORM",
        "MODEL.RESNETS.DEPTH",
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE",
        "MODEL.ROI_MASK_HEAD.POOLER_TYPE",
    }
)


def demo_config(norm: str = "FrozenBN") -> CfgNode:
    """Return the Detectron2 configuration of the model.

    Args:
        norm: `"FrozenBN"` for the served model, `"BN"` for the first training phase.
    """
    cfg = get_cfg()
    _set_input(cfg)
    _set_backbone(cfg, norm)
    _set_proposals(cfg)
    _set_heads(cfg)
    cfg.TEST.DETECTIONS_PER_IMAGE = 50
    return cfg


def _set_input(cfg: CfgNode) -> None:
    cfg.INPUT.FORMAT = "BGR"
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.INPUT.MIN_SIZE_TEST = 320
    cfg.INPUT.MAX_SIZE_TEST = 640
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = "model_final.pth"
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.PIXEL_STD = [57.375, 57.12, 58.395]


def _set_backbone(cfg: CfgNode, norm: str) -> None:
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.DEPTH = 50
    cfg.MODEL.RESNETS.NORM = norm
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 32
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 16
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 48


def _set_proposals(cfg: CfgNode) -> None:
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32], [64], [128], [256]]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[0.5, 1.0, 2.0]]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = 500
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = 500
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 300
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 200


def _set_heads(cfg: CfgNode) -> None:
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(CLASS_NAMES)
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 48
    cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION = 0.4
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.5
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 2
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 80
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 4
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 48
    cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION = 14


def served_yaml(cfg: CfgNode) -> str:
    """Dump a configuration as YAML with only its informative keys.

    Those are the keys that differ from Detectron2's defaults and `INFORMATIVE_KEYS`.
    """
    return str(_informative(cfg, get_cfg()).dump(sort_keys=True))


def _informative(cfg: CfgNode, defaults: CfgNode, prefix: str = "") -> CfgNode:
    kept = CfgNode()
    for key, value in cfg.items():
        name = prefix + key
        if isinstance(value, CfgNode):
            inner = _informative(value, defaults[key], name + ".")
            if inner:
                kept[key] = inner
        elif value != defaults[key] or name in INFORMATIVE_KEYS:
            kept[key] = value
    return kept
