"""FCOS: a box and its class from every pixel of every level (Tian et al. 2019, 2020)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from d2serve.model.config import ModelConfig
from d2serve.model.fcos_config import FCOSConfig
from d2serve.model.fcos_head import FCOSHead, LevelOutput
from d2serve.model.fpn import Backbone
from d2serve.model.network import Network
from d2serve.model.nms import ScoredBoxes, select_best
from d2serve.model.structures import Instances, ModelOutput, SizeHW, rescale

# The score of a pair of pixel and class below the threshold.
NO_CANDIDATE = -1.0


@dataclass(frozen=True)
class Detected:
    """The detections of a batch and the pixels that predicted them.

    instances: boxes in input pixels, which may exceed the image; levels, pixels: Int64[N], the
    index of a level and of a pixel in its map; hidden: for each level Float[B, C, H, W], the
    output of the head's tower of boxes.
    """

    instances: Instances
    levels: Tensor
    pixels: Tensor
    hidden: list[Tensor]


class FCOS(nn.Module):
    """Dense detection; the score is the root of a class score times the quality of the box."""

    def __init__(self, backbone: Backbone, config: FCOSConfig) -> None:
        super().__init__()
        self.config = config
        self.strides = tuple(backbone.strides[name] for name in config.in_features)
        self.fcos_head = FCOSHead(backbone.channels[config.in_features[0]], config)

    def forward(self, features: dict[str, Tensor]) -> Detected:
        """Detect in a batch.

        Args:
            features: by name Float[B, C, H/s, W/s].
        """
        config = self.config
        maps = [features[name] for name in config.in_features]
        outputs = [self.fcos_head(level, feature) for level, feature in enumerate(maps)]
        candidates = _concatenate(
            [self._select_top(level, output) for level, output in enumerate(outputs)]
        )
        (found,) = torch.where(candidates.scored.scores > NO_CANDIDATE)
        candidates = candidates.at(found)
        scored = replace(candidates.scored, scores=candidates.scored.scores.sqrt())
        instances = select_best(scored, len(maps[0]), config.nms_threshold, config.max_detections)
        assert instances.rows is not None
        chosen = candidates.at(instances.rows)
        hidden = [output.hidden for output in outputs]
        return Detected(instances, chosen.levels, chosen.pixels, hidden)

    def _select_top(self, level: int, output: LevelOutput) -> "_Candidates":
        """Decode the `topk_per_level` best pairs of pixel and class of each image."""
        config = self.config
        class_scores = output.logits.float().sigmoid()
        products = class_scores * output.quality.float().sigmoid()[..., None]
        compared = products if config.threshold_with_quality else class_scores
        products = products.where(compared > config.score_threshold, NO_CANDIDATE).flatten(1)
        best, order = products.topk(min(config.topk_per_level, products.shape[1]), dim=1)
        pixels = order // config.num_classes
        distances = output.distances.gather(1, pixels[..., None].expand(-1, -1, 4))
        images = torch.arange(len(best), device=best.device)[:, None].expand_as(best)
        stride, pixels = self.strides[level], pixels.flatten()
        x, y = positions(pixels, output.hidden.shape[-1], stride)
        left, top, right, bottom = (distances.flatten(0, 1) * stride).unbind(dim=1)
        boxes = torch.stack((x - left, y - top, x + right, y + bottom), dim=1)
        classes = (order % config.num_classes).flatten()
        scored = ScoredBoxes(boxes, best.flatten(), classes, images.flatten())
        return _Candidates(scored, torch.full_like(pixels, level), pixels)


@dataclass(frozen=True)
class _Candidates:
    """Boxes with Int64[N] indices of the levels and pixels that predicted them."""

    scored: ScoredBoxes
    levels: Tensor
    pixels: Tensor

    def at(self, rows: Tensor) -> "_Candidates":
        """The candidates at Int64[K]."""
        columns = (column[rows] for column in vars(self.scored).values())
        return _Candidates(ScoredBoxes(*columns), self.levels[rows], self.pixels[rows])


def _concatenate(levels: Sequence[_Candidates]) -> _Candidates:
    columns = zip(*(vars(level.scored).values() for level in levels), strict=True)
    return _Candidates(
        ScoredBoxes(*map(torch.cat, columns)),
        torch.cat([level.levels for level in levels]),
        torch.cat([level.pixels for level in levels]),
    )


def positions(pixels: Tensor, width: int | Tensor, stride: int | Tensor) -> tuple[Tensor, Tensor]:
    """Float32[N] x and y, in input pixels, of the centres of a map's pixels.

    Args:
        pixels: Int64[N], indices in row-major order.
        width: pixels of a row of the map, or Int64[N] of the map of each pixel.
        stride: input pixels per pixel of the map, or Int64[N].
    """
    x, y = pixels % width, pixels // width
    return x.float() * stride + stride // 2, y.float() * stride + stride // 2


class OneStageDetector(Network):
    """FCOS as a detector of its own."""

    def __init__(self, config: ModelConfig, family: FCOSConfig) -> None:
        super().__init__(config)
        self.proposal_generator = FCOS(self.backbone, family)

    def inference(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[ModelOutput]:
        """See `Network.inference`."""
        instances = self.proposal_generator(features).instances
        scaled = rescale(instances, sizes_hw, original_sizes_hw)
        return [ModelOutput(image) for image in scaled.by_image()]
