"""CenterMask2 of a keyed config as typed configuration."""

from d2serve.building.config_values import ConfigValues
from d2serve.building.fcos_keys import CENTER_HEADS
from d2serve.building.keyed_dense import read_levels
from d2serve.building.keyed_fcos import read_fcos
from d2serve.building.keyed_heads import HEADS, MASK, read_mask_head
from d2serve.model.backbone_config import BackboneConfig
from d2serve.model.heads_config import CenterMaskConfig, MaskHeadConfig, MaskIoUConfig

MASK_IOU = "MODEL.ROI_MASKIOU_HEAD"


def read_center_mask(values: ConfigValues, backbone: BackboneConfig) -> CenterMaskConfig:
    """Read MODEL.FCOS, MODEL.ROI_MASK_HEAD and MODEL.ROI_MASKIOU_HEAD."""
    fcos = read_fcos(values, backbone)
    # CenterMask2 cannot build the deformable convolutions of FCOS.
    for name in ("MODEL.KEYPOINT_ON", "MODEL.FCOS.USE_DEFORMABLE"):
        if values[name]:
            values.add_conflict(name, f"must be False for {CENTER_HEADS}")
    mask = None
    if values["MODEL.MASK_ON"]:
        mask = read_mask_head(values, CENTER_HEADS)
        if values[f"{HEADS}.NUM_CLASSES"] < fcos.num_classes:
            values.add_conflict(
                f"{HEADS}.NUM_CLASSES",
                f"must be at least MODEL.FCOS.NUM_CLASSES {fcos.num_classes}",
            )
    return CenterMaskConfig(
        fcos=fcos,
        in_features=read_levels(f"{HEADS}.IN_FEATURES", values, backbone),
        num_classes=values[f"{HEADS}.NUM_CLASSES"],
        level_by_ratio=mask is not None and values[f"{MASK}.ASSIGN_CRITERION"] == "ratio",
        mask=mask,
        mask_iou=_read_mask_iou(values, mask) if values["MODEL.MASKIOU_ON"] else None,
    )


def _read_mask_iou(values: ConfigValues, mask: MaskHeadConfig | None) -> MaskIoUConfig:
    values[f"{MASK_IOU}.NAME"]
    if mask is None:
        values.add_conflict("MODEL.MASKIOU_ON", "must be False if MODEL.MASK_ON is")
    elif mask.pooler.resolution % 2:
        values.add_conflict(f"{MASK}.POOLER_RESOLUTION", "must be even if MODEL.MASKIOU_ON is True")
    elif mask.conv_dim != values["MODEL.FPN.OUT_CHANNELS"]:
        values.add_conflict(
            f"{MASK}.CONV_DIM", "must be MODEL.FPN.OUT_CHANNELS if MODEL.MASKIOU_ON is True"
        )
    return MaskIoUConfig(values[f"{MASK_IOU}.NUM_CONV"], values[f"{MASK_IOU}.CONV_DIM"])
