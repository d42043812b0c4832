"""Faster and Mask R-CNN (`detectron2.modeling.meta_arch.rcnn.GeneralizedRCNN`)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from handler.rcnn.box_head import ScoredBoxes
from handler.rcnn.boxes import clip, larger_than
from handler.rcnn.config import RCNNConfig
from handler.rcnn.fpn import FPN, STRIDES
from handler.rcnn.image_batch import pad_to_batch
from handler.rcnn.resnet import ResNet
from handler.rcnn.roi_heads import ROIHeads
from handler.rcnn.rpn import RPN


@dataclass(frozen=True)
class Instances:
    """What was found in one image, best first.

    boxes: Float32[N, 4] xyxy in the original picture's pixels; scores: Float32[N] in 0..1;
    classes: Int64[N]; masks: Float32[N, M, M] probabilities over each box, or None.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    masks: Tensor | None


class GeneralizedRCNN(nn.Module):
    """The whole network, from resized pictures to instances in original pixels."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: RCNNConfig) -> None:
        super().__init__()
        self.config = config
        mean = torch.tensor(config.input.pixel_mean).view(-1, 1, 1)
        std = torch.tensor(config.input.pixel_std).view(-1, 1, 1)
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)
        channels = config.fpn.out_channels
        self.backbone = FPN(ResNet(config.resnet), config.fpn)
        self.proposal_generator = RPN(channels, _strides(config.rpn.in_features), config.rpn)
        self.roi_heads = ROIHeads(
            channels, _strides(config.roi_heads.in_features), config.roi_heads
        )

    @torch.inference_mode()
    def forward(
        self, images: Sequence[Tensor], original_sizes_hw: Sequence[tuple[int, int]]
    ) -> list[Instances]:
        """Detects in several pictures at once.

        Args:
            images: per picture UInt8 or Float[3, H, W] in 0..255, resized, channels in the order
                of INPUT.FORMAT, on the network's device; sizes may differ.
            original_sizes_hw: heights and widths that the boxes are scaled back to.
        """
        sizes_hw = [(image.shape[-2], image.shape[-1]) for image in images]
        batch = pad_to_batch([(image - self.pixel_mean) / self.pixel_std for image in images])
        levels = self.backbone(batch)
        rpn_levels = [levels[name] for name in self.config.rpn.in_features]
        proposals = self.proposal_generator(rpn_levels, sizes_hw)
        roi_levels = [levels[name] for name in self.config.roi_heads.in_features]
        found, masks = self.roi_heads(roi_levels, proposals, sizes_hw)
        return [
            _rescale(image, masks[index] if masks is not None else None, size_hw, original_hw)
            for index, (image, size_hw, original_hw) in enumerate(
                zip(found, sizes_hw, original_sizes_hw, strict=True)
            )
        ]


def _strides(features: Sequence[str]) -> list[int]:
    return [STRIDES[name] for name in features]


def _rescale(
    found: ScoredBoxes, masks: Tensor | None, size_hw: tuple[int, int], original_hw: tuple[int, int]
) -> Instances:
    """Back to the original picture's pixels (`detector_postprocess`)."""
    scale_y, scale_x = (
        original / size for original, size in zip(original_hw, size_hw, strict=True)
    )
    scale = found.boxes.new_tensor((scale_x, scale_y, scale_x, scale_y))
    boxes = clip(found.boxes * scale, original_hw)
    keep = larger_than(boxes, 0.0)
    return Instances(
        boxes=boxes[keep],
        scores=found.scores[keep],
        classes=found.classes[keep],
        masks=None if masks is None else masks[keep],
    )
