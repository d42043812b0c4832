"""Panoptic FPN (Kirillov et al. 2019; `detectron2.modeling.meta_arch.panoptic_fpn`)."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from handler.rcnn.config.model import ModelConfig, PanopticConfig
from handler.rcnn.generalized_rcnn import GeneralizedRCNN
from handler.rcnn.instances import Found, SizeHW
from handler.rcnn.semantic import SemanticHead, classes_of_pixels


class PanopticFPN(GeneralizedRCNN):
    """Instances, and a class for every pixel; whoever pastes the masks combines the two."""

    def __init__(self, config: ModelConfig, family: PanopticConfig) -> None:
        super().__init__(config, family.rcnn)
        self.sem_seg_head = SemanticHead(self.backbone, family.semantic)

    def find(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[Found]:
        """See `Network.find`."""
        found = super().find(features, sizes_hw, original_sizes_hw)
        logits = self.sem_seg_head(features)
        return [
            replace(image, semantic=classes_of_pixels(*sizes))
            for image, *sizes in zip(found, logits, sizes_hw, original_sizes_hw, strict=True)
        ]
