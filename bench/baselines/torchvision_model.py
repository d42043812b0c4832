"""Eager model file of TorchServe's object_detector handler, which requires one class in it:
torchvision's maskrcnn_resnet50_fpn with frozen norms, and its own 800/1333 and 100 detections."""

from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.mask_rcnn import MaskRCNN

NUM_CLASSES = 91


class MaskRCNNResNet50FPN(MaskRCNN):  # type: ignore[misc]
    """Weights come from the archive."""

    def __init__(self) -> None:
        backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None)
        super().__init__(backbone, NUM_CLASSES)
