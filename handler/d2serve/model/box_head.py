"""The box head: class scores and refined boxes from proposals (Fast R-CNN, Girshick 2015)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from d2serve.model.heads_config import (
    LEARNED_SCALE,
    BoxHeadConfig,
    BoxPredictorConfig,
    SelectionConfig,
)
from d2serve.model.layers import Conv2d
from d2serve.model.nms import ScoredBoxes, select_best
from d2serve.model.structures import Instances, SizeHW, apply_deltas, clip, image_indices, limits


class ConvFCHead(nn.Sequential):
    """Convolutions, then fully connected layers (`FastRCNNConvFCHead`)."""

    def __init__(self, in_channels: int, resolution: int, config: BoxHeadConfig) -> None:
        super().__init__()
        for index in range(config.num_conv):
            conv = Conv2d(in_channels, config.conv_dim, 3, norm=config.norm, relu=True)
            self.add_module(f"conv{index + 1}", conv)
            in_channels = config.conv_dim
        self.resolution = resolution
        self.out_size = in_channels * resolution**2
        self.add_module("flatten", nn.Flatten())
        for index in range(config.num_fc):
            self.add_module(f"fc{index + 1}", nn.Linear(self.out_size, config.fc_dim))
            self.add_module(f"fc_relu{index + 1}", nn.ReLU(inplace=True))
            self.out_size = config.fc_dim


@dataclass(frozen=True)
class Candidates:
    """A box predictor's output for P proposals of all images.

    scores: Float32[P, K], without the background; deltas: Float[P, K * 4], or Float[P, 4] if
    class-agnostic; proposals: Float32[P, 4] that the deltas move; weights: divisors of the deltas;
    counts: number of proposals of each image.
    """

    scores: Tensor
    deltas: Tensor
    proposals: Tensor
    weights: tuple[float, ...]
    counts: list[int]


class BoxPredictor(nn.Module):
    """Scores and box deltas for every class (`FastRCNNOutputLayers`)."""

    def __init__(self, in_size: int, config: BoxPredictorConfig) -> None:
        super().__init__()
        self.config = config
        box_classes = 1 if config.class_agnostic else config.num_classes
        self.cls_score = nn.Linear(in_size, config.num_classes + 1)
        self.bbox_pred = nn.Linear(in_size, box_classes * 4)

    def forward(self, features: Tensor, proposals: Tensor, counts: list[int]) -> Candidates:
        """Predict from Float[P, ...] and the proposals Float32[P, 4], `counts` for each image."""
        features = features.flatten(1).to(self.cls_score.weight.dtype)
        logits = self.predict_logits(features)
        scores = logits.sigmoid() if self.config.sigmoid_scores else logits.softmax(dim=-1)
        deltas = self.bbox_pred(features)
        return Candidates(scores[:, :-1], deltas, proposals, self.config.box_weights, counts)

    def predict_logits(self, features: Tensor) -> Tensor:
        """Float32[P, C] -> Float32[P, K + 1]; the last is the background's."""
        logits: Tensor = self.cls_score(features)
        return logits


class CosineBoxPredictor(BoxPredictor):
    """Scores from cosine similarities with a vector per class (FsDet; Wang et al. 2020)."""

    EPSILON = 1e-5  # added to lengths

    def __init__(self, in_size: int, config: BoxPredictorConfig, scale: float) -> None:
        super().__init__(in_size, config)
        self.cls_score = nn.Linear(in_size, config.num_classes + 1, bias=False)
        self.scale: float | Tensor = scale
        if scale == LEARNED_SCALE:
            del self.scale
            self.scale = nn.Parameter(torch.ones(1))

    def predict_logits(self, features: Tensor) -> Tensor:
        """See `BoxPredictor.predict_logits`."""
        similarities = nn.functional.linear(
            self._normalized(features), self._normalized(self.cls_score.weight)
        )
        return self.scale * similarities

    def _normalized(self, rows: Tensor) -> Tensor:
        return rows / (torch.linalg.vector_norm(rows, dim=1, keepdim=True) + self.EPSILON)


def build_box_predictor(in_size: int, config: BoxPredictorConfig) -> BoxPredictor:
    """Build the predictor of a config for regions of `in_size` features."""
    if config.cosine_scale is None:
        return BoxPredictor(in_size, config)
    return CosineBoxPredictor(in_size, config, config.cosine_scale)


def select_boxes(
    candidates: Candidates, sizes_hw: Sequence[SizeHW], config: SelectionConfig
) -> Instances:
    """Apply the score threshold, class-wise NMS and top-k to every image (`fast_rcnn_inference`).

    Only boxes above the threshold are decoded.

    Args:
        candidates: of all images.
        sizes_hw: heights and widths that the boxes of each image are clipped to.
        config: the thresholds.
    """
    scores, deltas = candidates.scores, candidates.deltas
    finite = deltas.isfinite().all(dim=1) & scores.isfinite().all(dim=1)
    rows, classes = torch.where((scores > config.score_threshold) & finite[:, None])
    by_class = deltas.unflatten(1, (deltas.shape[1] // 4, 4))
    chosen = by_class[rows, 0] if by_class.shape[1] == 1 else by_class[rows, classes]
    boxes = apply_deltas(chosen, candidates.proposals[rows], candidates.weights)[:, 0]
    image = image_indices(candidates.counts, rows.device)[rows]
    boxes = clip(boxes, limits(sizes_hw, rows.device)[image])
    scored = ScoredBoxes(boxes, scores[rows, classes].float(), classes, image)
    return select_best(scored, len(sizes_hw), config.nms_threshold, config.max_detections)
