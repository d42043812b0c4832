"""The box head: class scores and refined boxes from proposals (Fast R-CNN, Girshick 2015)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from handler.rcnn.boxes import apply_deltas, clip
from handler.rcnn.config import BoxHeadConfig, ROIHeadsConfig
from handler.rcnn.layers import Conv2d


@dataclass(frozen=True)
class ScoredBoxes:
    """Detections of one image, best first.

    boxes: Float32[N, 4] xyxy in pixels of the network's input; scores: Float32[N] in 0..1;
    classes: Int64[N].
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor


class ConvFCHead(nn.Sequential):
    """Convolutions, then fully connected layers (`FastRCNNConvFCHead`)."""

    def __init__(self, in_channels: int, config: BoxHeadConfig) -> None:
        super().__init__()
        for index in range(config.num_conv):
            conv = Conv2d(in_channels, config.conv_dim, 3, padding=1, relu=True)
            self.add_module(f"conv{index + 1}", conv)
            in_channels = config.conv_dim
        self.out_size = in_channels * config.pooler.resolution**2
        self.add_module("flatten", nn.Flatten())
        for index in range(config.num_fc):
            self.add_module(f"fc{index + 1}", nn.Linear(self.out_size, config.fc_dim))
            self.add_module(f"fc_relu{index + 1}", nn.ReLU(inplace=True))
            self.out_size = config.fc_dim


class BoxPredictor(nn.Module):
    """Scores and box deltas for every class (`FastRCNNOutputLayers`)."""

    def __init__(self, in_size: int, config: ROIHeadsConfig) -> None:
        super().__init__()
        self.config = config
        box_classes = 1 if config.box.class_agnostic else config.num_classes
        self.cls_score = nn.Linear(in_size, config.num_classes + 1)
        self.bbox_pred = nn.Linear(in_size, box_classes * 4)

    def forward(self, features: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:
        """Float[M, in_size] and Float[M, 4] -> scores Float[M, K] without the background's, and
        boxes Float32[M, K or 1, 4]."""
        logits = self.cls_score(features)
        scores = logits.sigmoid() if self.config.box.sigmoid_scores else logits.softmax(dim=-1)
        boxes = apply_deltas(self.bbox_pred(features), proposals, self.config.box.box_weights)
        return scores[:, :-1], boxes

    def select(
        self, scores: Sequence[Tensor], boxes: Sequence[Tensor], sizes_hw: Sequence[tuple[int, int]]
    ) -> list[ScoredBoxes]:
        """Threshold, class-wise NMS and top-k of every image (`fast_rcnn_inference`)."""
        return [self._select_image(*image) for image in zip(scores, boxes, sizes_hw, strict=True)]

    def _select_image(self, scores: Tensor, boxes: Tensor, size_hw: tuple[int, int]) -> ScoredBoxes:
        finite = boxes.flatten(1).isfinite().all(dim=1) & scores.isfinite().all(dim=1)
        good = (scores > self.config.score_threshold) & finite[:, None]
        rows, classes = good.nonzero(as_tuple=True)
        chosen = boxes[rows, 0] if self.config.box.class_agnostic else boxes[rows, classes]
        chosen, chosen_scores = clip(chosen, size_hw), scores[rows, classes].float()
        keep = batched_nms(chosen, chosen_scores, classes, self.config.nms_threshold)
        keep = keep[: self.config.max_detections]
        return ScoredBoxes(chosen[keep], chosen_scores[keep], classes[keep])


def concatenate(per_image: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
    """All rows of all images in one tensor, and how many each image has."""
    return torch.cat(list(per_image)), [len(rows) for rows in per_image]
