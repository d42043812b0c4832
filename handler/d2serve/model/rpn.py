"""Region proposal network (Ren et al. 2015; `detectron2.modeling.proposal_generator.rpn`)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from d2serve.model.anchors import Anchors
from d2serve.model.fpn import Backbone
from d2serve.model.heads_config import RPNConfig
from d2serve.model.layers import Conv2d
from d2serve.model.nms import nms_per_level
from d2serve.model.structures import SizeHW, apply_deltas, clip, larger_than, limits


@dataclass(frozen=True)
class Proposals:
    """Boxes that may contain an object, one image after the other, best first in each.

    boxes: Float32[P, 4] xyxy in input pixels; logits: Float32[P] of objectness; counts: number of
    proposals of each image.
    """

    boxes: Tensor
    logits: Tensor
    counts: list[int]


class RPNHead(nn.Module):
    """3x3 convolutions, if any; 1x1 convolutions to objectness and box deltas of each anchor."""

    def __init__(self, in_channels: int, anchors: int, conv_dims: Sequence[int]) -> None:
        super().__init__()
        convs = nn.Sequential()
        for index, dim in enumerate(conv_dims):
            out_channels = in_channels if dim == -1 else dim
            convs.add_module(f"conv{index}", Conv2d(in_channels, out_channels, 3, relu=True))
            in_channels = out_channels
        # As in Detectron2, a single convolution is not numbered.
        self.conv: nn.Module = convs[0] if len(conv_dims) == 1 else convs
        self.objectness_logits = nn.Conv2d(in_channels, anchors, 1)
        self.anchor_deltas = nn.Conv2d(in_channels, anchors * 4, 1)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Float[N, C, H, W] -> logits Float[N, H*W*A] and deltas Float[N, H*W*A, 4]."""
        hidden = self.conv(feature)
        logits = self.objectness_logits(hidden).permute(0, 2, 3, 1).flatten(1)
        deltas = self.anchor_deltas(hidden).permute(0, 2, 3, 1)
        return logits, deltas.reshape(len(logits), -1, 4)


class RPN(nn.Module):
    """Proposes boxes that may contain an object, of any class."""

    def __init__(self, backbone: Backbone, config: RPNConfig) -> None:
        super().__init__()
        self.config = config
        strides = [backbone.strides[name] for name in config.in_features]
        self.anchors = Anchors(config.anchors, strides)
        in_channels = backbone.channels[config.in_features[0]]
        self.rpn_head = RPNHead(in_channels, config.anchors.per_cell, config.conv_dims)

    def forward(self, features: dict[str, Tensor], sizes_hw: Sequence[SizeHW]) -> Proposals:
        """Propose the best boxes of each image.

        Args:
            features: by name Float[N, C, H/s, W/s].
            sizes_hw: heights and widths of the N resized images, without padding.
        """
        maps = [features[name] for name in self.config.in_features]
        borders = limits(sizes_hw, maps[0].device)
        # Convolutions first: on a CPU, the other threads fall asleep during each selection.
        outputs = [self.rpn_head(map_) for map_ in maps]
        levels = [
            self._select_top(logits, deltas, self.anchors(level, maps[level]), borders)
            for level, (logits, deltas) in enumerate(outputs)
        ]
        boxes, scores = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
        kept = nms_per_level([level_boxes for level_boxes, _ in levels], self.config.nms_threshold)
        scores = scores.where(torch.cat(kept, dim=1), -torch.inf)
        limit = self.config.post_nms_topk
        best, order = scores.topk(min(self.config.max_proposals, scores.shape[1]), dim=1)
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        counts = (best.isfinite().sum(dim=1) + min(limit, 0)).clamp(min=0).tolist()
        ragged = [
            (image_boxes[:count], image_logits[:count])
            for image_boxes, image_logits, count in zip(boxes, best, counts, strict=True)
        ]
        boxes, best = (torch.cat(parts) for parts in zip(*ragged, strict=True))
        return Proposals(boxes, best, counts)

    def _select_top(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor, borders: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode the `pre_nms_topk` best anchors of a level and clip them to the images.

        Args:
            logits, deltas: the head's output.
            anchors: Float32[H*W*A, 4] xyxy in input pixels.
            borders: see `limits`.

        Returns:
            Boxes Float32[N, K, 4] and logits Float32[N, K]; an empty box and -inf for an anchor
            that does not give a valid proposal.
        """
        scores, best = logits.topk(min(self.config.pre_nms_topk, logits.shape[1]), dim=1)
        deltas = deltas.gather(1, best[..., None].expand(-1, -1, 4))
        boxes = apply_deltas(deltas.flatten(0, 1), anchors[best.flatten()], self.config.box_weights)
        boxes = boxes.view_as(deltas)
        clipped = clip(boxes, borders[:, None])
        valid = boxes.isfinite().all(dim=-1) & scores.isfinite()
        valid &= larger_than(clipped, self.config.min_box_size)
        return clipped.where(valid[..., None], 0.0), scores.float().where(valid, -torch.inf)
