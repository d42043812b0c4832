"""Peer (c)'s network: the eager model file that TorchServe's object_detector handler loads.

torchvision's maskrcnn_resnet50_fpn as its users have it, with the frozen norms that go with its
weights; 800/1333 pixels and 100 detections are its own defaults. TorchServe wants one class in
this file.
"""

from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.mask_rcnn import MaskRCNN

NUM_CLASSES = 91


class MaskRCNNResNet50FPN(MaskRCNN):  # type: ignore[misc]
    """Weights come from the archive."""

    def __init__(self) -> None:
        backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None)
        super().__init__(backbone, NUM_CLASSES)
