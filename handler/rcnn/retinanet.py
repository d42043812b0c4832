"""RetinaNet (Lin et al. 2017, Focal Loss; `detectron2.modeling.meta_arch.retinanet`)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from handler.rcnn.anchors import Anchors
from handler.rcnn.boxes import apply_deltas
from handler.rcnn.config.dense import RetinaNetConfig
from handler.rcnn.config.model import ModelConfig
from handler.rcnn.instances import Found, Instances, SizeHW, rescale
from handler.rcnn.layers import make_norm
from handler.rcnn.network import Network
from handler.rcnn.nms import batched_nms


class RetinaNetHead(nn.Module):
    """Two stacks of 3x3 convolutions on every level, one for classes and one for boxes."""

    def __init__(self, channels: int, config: RetinaNetConfig) -> None:
        super().__init__()
        self.num_classes = config.num_classes
        anchors = config.anchors.per_cell
        self.cls_subnet = _subnet(channels, config)
        self.bbox_subnet = _subnet(channels, config)
        self.cls_score = nn.Conv2d(channels, anchors * config.num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(channels, anchors * 4, 3, padding=1)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Float[N, C, H, W] -> logits Float[N, H*W*A, K] and deltas Float[N, H*W*A, 4]."""
        logits = self.cls_score(self.cls_subnet(feature))
        deltas = self.bbox_pred(self.bbox_subnet(feature))
        return _per_anchor(logits, self.num_classes), _per_anchor(deltas, 4)


class RetinaNet(Network):
    """Classes and boxes from every anchor of every level, without proposals."""

    def __init__(self, config: ModelConfig, family: RetinaNetConfig) -> None:
        super().__init__(config)
        self.family = family
        strides = [self.backbone.strides[name] for name in family.in_features]
        self.anchors = Anchors(family.anchors, strides)
        self.head = RetinaNetHead(self.backbone.channels[family.in_features[0]], family)

    def find(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[Found]:
        """See `Network.find`."""
        levels = [features[name] for name in self.family.in_features]
        predicted = [self.head(level) for level in levels]
        anchors = [self.anchors(index, level) for index, level in enumerate(levels)]
        found = []
        for image, (size_hw, original_hw) in enumerate(
            zip(sizes_hw, original_sizes_hw, strict=True)
        ):
            candidates = [
                self._best_of_level(logits[image], deltas[image], level_anchors)
                for (logits, deltas), level_anchors in zip(predicted, anchors, strict=True)
            ]
            found.append(Found(rescale(self._select(candidates), size_hw, original_hw)))
        return found

    def _best_of_level(self, logits: Tensor, deltas: Tensor, anchors: Tensor) -> Instances:
        """Of Float[A, K] logits the best ones above the threshold, decoded."""
        best_logits, best = logits.flatten().topk(min(self.family.topk_per_level, logits.numel()))
        scores = best_logits.float().sigmoid()
        above = scores > self.family.score_threshold
        scores, best = scores[above], best[above]
        rows, classes = best // logits.shape[1], best % logits.shape[1]
        boxes = apply_deltas(deltas[rows], anchors[rows], self.family.box_weights)[:, 0]
        return Instances(boxes, scores, classes)

    def _select(self, levels: Sequence[Instances]) -> Instances:
        boxes = torch.cat([level.boxes for level in levels])
        scores = torch.cat([level.scores for level in levels])
        classes = torch.cat([level.classes for level in levels])
        keep = batched_nms(boxes, scores, classes, self.family.nms_threshold)
        return Instances(boxes, scores, classes).select(keep[: self.family.max_detections])


def _subnet(channels: int, config: RetinaNetConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(config.num_convs):
        layers.append(nn.Conv2d(channels, channels, 3, padding=1))
        norm = make_norm(config.norm, channels)
        if norm is not None:
            layers.append(norm)
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _per_anchor(output: Tensor, values: int) -> Tensor:
    """Float[N, A*V, H, W] -> Float[N, H*W*A, V]."""
    images, _, height, width = output.shape
    split = output.view(images, -1, values, height, width)
    return split.permute(0, 3, 4, 1, 2).reshape(images, -1, values)
