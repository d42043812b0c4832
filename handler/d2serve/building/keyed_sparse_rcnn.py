"""Sparse R-CNN of a keyed config as typed configuration."""

from d2serve.building.config_values import ConfigValues
from d2serve.building.keyed_dense import read_levels
from d2serve.building.keyed_heads import BOX, HEADS, read_pooler
from d2serve.building.sparse_rcnn_keys import SECTION
from d2serve.model.backbone_config import BackboneConfig
from d2serve.model.sparse_rcnn_config import SparseRCNNConfig


def read_sparse_rcnn(values: ConfigValues, backbone: BackboneConfig) -> SparseRCNNConfig:
    """Read MODEL.SparseRCNN, and the levels and the pooler of MODEL.ROI_HEADS."""
    values[f"{SECTION}.NUM_DYNAMIC"]
    config = SparseRCNNConfig(
        in_features=read_levels(f"{HEADS}.IN_FEATURES", values, backbone),
        pooler=read_pooler(values, BOX),
        num_classes=values[f"{SECTION}.NUM_CLASSES"],
        num_proposals=values[f"{SECTION}.NUM_PROPOSALS"],
        stages=values[f"{SECTION}.NUM_HEADS"],
        dim=values[f"{SECTION}.HIDDEN_DIM"],
        heads=values[f"{SECTION}.NHEADS"],
        ffn_dim=values[f"{SECTION}.DIM_FEEDFORWARD"],
        dynamic_dim=values[f"{SECTION}.DIM_DYNAMIC"],
        class_layers=values[f"{SECTION}.NUM_CLS"],
        box_layers=values[f"{SECTION}.NUM_REG"],
        gelu=values[f"{SECTION}.ACTIVATION"] == "gelu",
        sigmoid_scores=values[f"{SECTION}.USE_FOCAL"],
    )
    _check_channels(values, backbone, config)
    return config


def _check_channels(
    values: ConfigValues, backbone: BackboneConfig, config: SparseRCNNConfig
) -> None:
    """A proposal has as many channels as the features that are pooled for it."""
    name = f"{SECTION}.HIDDEN_DIM"
    if backbone.fpn is None:
        values.add_conflict("MODEL.BACKBONE.NAME", "must be a backbone with FPN for Sparse R-CNN")
    elif backbone.fpn.out_channels != config.dim:
        channels = backbone.fpn.out_channels
        values.add_conflict(name, f"must be {channels}, as MODEL.FPN.OUT_CHANNELS")
    elif config.dim % config.heads:
        values.add_conflict(name, f"must be a multiple of {SECTION}.NHEADS, {config.heads}")
