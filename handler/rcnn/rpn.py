"""Region proposal network (Ren et al. 2015; `detectron2.modeling.proposal_generator.rpn`)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from handler.rcnn.anchors import Anchors
from handler.rcnn.backbone import Backbone
from handler.rcnn.boxes import apply_deltas, clip, larger_than
from handler.rcnn.config.dense import RPNConfig
from handler.rcnn.instances import SizeHW
from handler.rcnn.layers import Conv2d
from handler.rcnn.nms import batched_nms


@dataclass(frozen=True)
class Proposals:
    """Boxes of one image that may hold an object, best first.

    boxes: Float32[P, 4] xyxy in input pixels; logits: Float32[P] of objectness.
    """

    boxes: Tensor
    logits: Tensor


class RPNHead(nn.Module):
    """3x3 convolutions, then objectness and box deltas for every anchor by 1x1 convolutions."""

    def __init__(self, in_channels: int, anchors: int, conv_dims: Sequence[int]) -> None:
        super().__init__()
        convs = nn.Sequential()
        for index, dim in enumerate(conv_dims):
            out_channels = in_channels if dim == -1 else dim
            convs.add_module(f"conv{index}", Conv2d(in_channels, out_channels, 3, relu=True))
            in_channels = out_channels
        # Detectron2 numbers the convolutions only where there are several.
        self.conv: nn.Module = convs if len(conv_dims) > 1 else convs[0]
        self.objectness_logits = nn.Conv2d(in_channels, anchors, 1)
        self.anchor_deltas = nn.Conv2d(in_channels, anchors * 4, 1)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Float[N, C, H, W] -> logits Float[N, H*W*A] and deltas Float[N, H*W*A, 4]."""
        hidden = self.conv(feature)
        logits = self.objectness_logits(hidden).permute(0, 2, 3, 1).flatten(1)
        deltas = self.anchor_deltas(hidden).permute(0, 2, 3, 1)
        return logits, deltas.reshape(len(logits), -1, 4)


class RPN(nn.Module):
    """Proposes boxes that may hold an object."""

    def __init__(self, backbone: Backbone, config: RPNConfig) -> None:
        super().__init__()
        self.config = config
        strides = [backbone.strides[name] for name in config.in_features]
        self.anchors = Anchors(config.anchors, strides)
        in_channels = backbone.channels[config.in_features[0]]
        self.rpn_head = RPNHead(in_channels, config.anchors.per_cell, config.conv_dims)

    def forward(self, features: dict[str, Tensor], sizes_hw: Sequence[SizeHW]) -> list[Proposals]:
        """Proposals of every image, at most post_nms_topk.

        Args:
            features: by name Float[N, C, H/s, W/s].
            sizes_hw: the N images' heights and widths, padding apart.
        """
        boxes, scores, levels = [], [], []
        for level, name in enumerate(self.config.in_features):
            level_boxes, level_scores = self._best_of_level(level, features[name])
            boxes.append(level_boxes)
            scores.append(level_scores)
            levels.append(torch.full_like(level_scores[0], level, dtype=torch.int64))
        all_boxes, all_scores = torch.cat(boxes, dim=1), torch.cat(scores, dim=1)
        all_levels = torch.cat(levels)
        return [
            self._select(image_boxes, image_scores, all_levels, size_hw)
            for image_boxes, image_scores, size_hw in zip(
                all_boxes, all_scores, sizes_hw, strict=True
            )
        ]

    def _best_of_level(self, level: int, feature: Tensor) -> tuple[Tensor, Tensor]:
        """The pre_nms_topk best anchors of a level, decoded: Float[N, K, 4] and Float[N, K]."""
        logits, deltas = self.rpn_head(feature)
        anchors = self.anchors(level, feature)
        scores, best = logits.topk(min(self.config.pre_nms_topk, logits.shape[1]), dim=1)
        deltas = deltas.gather(1, best[..., None].expand(-1, -1, 4))
        boxes = apply_deltas(deltas.flatten(0, 1), anchors[best.flatten()], self.config.box_weights)
        return boxes.view_as(deltas), scores

    def _select(self, boxes: Tensor, logits: Tensor, levels: Tensor, size_hw: SizeHW) -> Proposals:
        finite = boxes.isfinite().all(dim=1) & logits.isfinite()
        clipped = clip(boxes, size_hw)
        valid = finite & larger_than(clipped, self.config.min_box_size)
        clipped, logits, levels = clipped[valid], logits[valid].float(), levels[valid]
        keep = batched_nms(clipped, logits, levels, self.config.nms_threshold)
        keep = keep[: self.config.post_nms_topk]
        return Proposals(clipped[keep], logits[keep])
