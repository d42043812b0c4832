"""RetinaNet (Lin et al. 2017, Focal Loss; `detectron2.modeling.meta_arch.retinanet`)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.anchors import Anchors
from d2serve.model.config import ModelConfig, RetinaNetConfig
from d2serve.model.layers import make_norm
from d2serve.model.network import Network
from d2serve.model.nms import ScoredBoxes, select_best
from d2serve.model.structures import ModelOutput, SizeHW, apply_deltas, rescale

NORMS_PER_LEVEL = ("BN", "SyncBN")


class RetinaNetHead(nn.Module):
    """Two stacks of 3x3 convolutions on every level, one for classes and one for boxes."""

    def __init__(self, channels: int, config: RetinaNetConfig) -> None:
        super().__init__()
        self.num_classes = config.num_classes
        anchors = config.anchors.per_cell
        self.cls_subnet = Subnet(channels, config)
        self.bbox_subnet = Subnet(channels, config)
        self.cls_score = nn.Conv2d(channels, anchors * config.num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(channels, anchors * 4, 3, padding=1)

    def forward(self, level: int, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Float[N, C, H, W] of a level -> logits Float[N, H*W*A, K], deltas Float[N, H*W*A, 4]."""
        logits = self.cls_score(self.cls_subnet(level, feature))
        deltas = self.bbox_pred(self.bbox_subnet(level, feature))
        return _per_anchor(logits, self.num_classes), _per_anchor(deltas, 4)


class RetinaNet(Network):
    """Classes and boxes from every anchor of every level, without a proposal stage."""

    def __init__(self, config: ModelConfig, family: RetinaNetConfig) -> None:
        super().__init__(config)
        self.family = family
        strides = [self.backbone.strides[name] for name in family.in_features]
        self.anchors = Anchors(family.anchors, strides)
        self.head = RetinaNetHead(self.backbone.channels[family.in_features[0]], family)

    def inference(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[ModelOutput]:
        """See `Network.inference`."""
        maps = [features[name] for name in self.family.in_features]
        levels = [self._select_top(level, feature) for level, feature in enumerate(maps)]
        candidates = _above_threshold(_concatenate(levels), self.family.score_threshold)
        instances = select_best(
            candidates, len(sizes_hw), self.family.nms_threshold, self.family.max_detections
        )
        scaled = rescale(instances, sizes_hw, original_sizes_hw)
        return [ModelOutput(image) for image in scaled.by_image()]

    def _select_top(self, level: int, feature: Tensor) -> ScoredBoxes:
        """Decode the `topk_per_level` best pairs of anchor and class of each image."""
        logits, deltas = self.head(level, feature)
        anchors = self.anchors(level, feature)
        classes = logits.shape[2]
        flat = logits.flatten(1)
        best_logits, best = flat.topk(min(self.family.topk_per_level, flat.shape[1]), dim=1)
        rows = best // classes
        deltas = deltas.gather(1, rows[..., None].expand(-1, -1, 4)).flatten(0, 1)
        boxes = apply_deltas(deltas, anchors[rows.flatten()], self.family.box_weights)[:, 0]
        images = torch.arange(len(best), device=best.device)[:, None].expand_as(best)
        scores = best_logits.float().sigmoid()
        return ScoredBoxes(boxes, scores.flatten(), (best % classes).flatten(), images.flatten())


def _above_threshold(boxes: ScoredBoxes, threshold: float) -> ScoredBoxes:
    (chosen,) = torch.where(boxes.scores > threshold)
    return ScoredBoxes(
        boxes.boxes[chosen], boxes.scores[chosen], boxes.classes[chosen], boxes.images[chosen]
    )


def _concatenate(levels: Sequence[ScoredBoxes]) -> ScoredBoxes:
    return ScoredBoxes(
        torch.cat([level.boxes for level in levels]),
        torch.cat([level.scores for level in levels]),
        torch.cat([level.classes for level in levels]),
        torch.cat([level.images for level in levels]),
    )


class Subnet(nn.Sequential):
    """3x3 convolutions, each with a norm, if configured, and a ReLU."""

    def __init__(self, channels: int, config: RetinaNetConfig) -> None:
        super().__init__()
        for _ in range(config.num_convs):
            self.append(nn.Conv2d(channels, channels, 3, padding=1))
            norm = _make_norm(channels, config)
            if norm is not None:
                self.append(norm)
            self.append(nn.ReLU(inplace=True))

    def forward(self, level: int, feature: Tensor) -> Tensor:  # type: ignore[override]
        """Float[N, C, H, W] of a level -> the same shape."""
        for layer in self:
            is_per_level = isinstance(layer, BatchNormPerLevel)
            feature = layer(level, feature) if is_per_level else layer(feature)
        return feature


class BatchNormPerLevel(nn.Module):
    """A batch norm of common weights and fixed statistics of each level (`CycleBatchNormList`)."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        for level in range(levels):
            self.add_module(str(level), Statistics(channels))

    def forward(self, level: int, feature: Tensor) -> Tensor:
        """Float[N, C, H, W] of a level -> the same shape."""
        statistics = self.get_submodule(str(level))
        mean, variance = (statistics.get_buffer(name) for name in ("running_mean", "running_var"))
        return F.batch_norm(feature, mean, variance, self.weight, self.bias)


class Statistics(nn.Module):
    """Mean and variance of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))


def _make_norm(channels: int, config: RetinaNetConfig) -> nn.Module | None:
    # Detectron2 shares the statistics of all other norms.
    if config.norm in NORMS_PER_LEVEL:
        return BatchNormPerLevel(channels, len(config.in_features))
    return make_norm(config.norm, channels)


def _per_anchor(output: Tensor, values: int) -> Tensor:
    """Float[N, A*V, H, W] -> Float[N, H*W*A, V]."""
    images, _, height, width = output.shape
    split = output.view(images, -1, values, height, width)
    return split.permute(0, 3, 4, 1, 2).reshape(images, -1, values)
