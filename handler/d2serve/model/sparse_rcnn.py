"""Sparse R-CNN: learned proposals refined by stages, without anchors and NMS (Sun et al. 2021)."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.attention import MultiheadAttention
from d2serve.model.config import ModelConfig
from d2serve.model.fpn import Backbone
from d2serve.model.linear import FullPrecisionLinear, Linear
from d2serve.model.network import Network
from d2serve.model.poolers import FeatureMaps, ROIPooler
from d2serve.model.sparse_rcnn_config import SparseRCNNConfig
from d2serve.model.structures import (
    Instances,
    ModelOutput,
    SizeHW,
    apply_deltas,
    around,
    limits,
    rescale,
)

BOX_WEIGHTS = (2.0, 2.0, 1.0, 1.0)
# A 16 px box may grow to at most 100,000 px in a stage.
LOG_SCALE_LIMIT = math.log(100_000.0 / 16)


class DynamicConv(nn.Module):
    """Two layers on each cell of a region, whose weights its proposal predicts, then a fully
    connected one."""

    def __init__(self, config: SparseRCNNConfig) -> None:
        super().__init__()
        dim = config.dim
        self.shape = (dim, config.dynamic_dim)
        self.dynamic_layer = Linear(dim, 2 * dim * config.dynamic_dim)
        self.norm1 = nn.LayerNorm(config.dynamic_dim)
        self.norm2 = nn.LayerNorm(dim)
        self.out_layer = Linear(dim * config.pooler.resolution**2, dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, proposals: Tensor, regions: Tensor) -> Tensor:
        """Proposals Float[R, C] and the cells of their regions Float[R, S, C] -> Float[R, C]."""
        first, second = self.dynamic_layer(proposals).chunk(2, dim=1)
        hidden = regions @ first.unflatten(1, self.shape)
        hidden = F.relu_(self.norm1(hidden)) @ second.unflatten(1, self.shape[::-1])
        hidden = self.out_layer(F.relu_(self.norm2(hidden)).flatten(1))
        return F.relu_(self.norm3(hidden))


class Stage(nn.Module):
    """Refines the proposals of every image once (`RCNNHead`)."""

    def __init__(self, config: SparseRCNNConfig) -> None:
        super().__init__()
        dim, gelu = config.dim, config.gelu
        self.self_attn = MultiheadAttention(dim, config.heads)
        self.norm1 = nn.LayerNorm(dim)
        self.inst_interact = DynamicConv(config)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = Linear(dim, config.ffn_dim, relu=not gelu, gelu=gelu)
        self.linear2 = Linear(config.ffn_dim, dim)
        self.norm3 = nn.LayerNorm(dim)
        self.cls_module = _layers(dim, config.class_layers)
        self.reg_module = _layers(dim, config.box_layers)
        classes = config.num_classes if config.sigmoid_scores else config.num_classes + 1
        self.class_logits = FullPrecisionLinear(dim, classes)
        self.bboxes_delta = FullPrecisionLinear(dim, 4)

    def forward(self, proposals: Tensor, boxes: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Refine features and boxes of P proposals of each of N images.

        Args:
            proposals: Float[N, P, C].
            boxes: Float32[N * P, 4] xyxy in input pixels.
            regions: Float[N * P, S, C], the cells of the features pooled from the boxes.

        Returns:
            Float[N, P, C] and Float32[N * P, 4].
        """
        attended = self.self_attn(proposals, proposals, proposals)
        rows = self.norm1(proposals + attended).flatten(0, 1)
        rows = self.norm2(rows + self.inst_interact(rows, regions))
        rows = self.norm3(self.linear2.add(self.linear1(rows), rows))
        deltas = self.bboxes_delta(self.reg_module(rows))
        refined = apply_deltas(deltas, boxes, BOX_WEIGHTS, LOG_SCALE_LIMIT)[:, 0]
        return rows.view_as(proposals), refined

    def classify(self, proposals: Tensor) -> Tensor:
        """Predict class logits Float32[N, P, K] of refined proposals Float[N, P, C]."""
        logits: Tensor = self.class_logits(self.cls_module(proposals))
        return logits


class DynamicHead(nn.Module):
    """A sequence of stages; the last one's class scores count."""

    def __init__(self, backbone: Backbone, config: SparseRCNNConfig) -> None:
        super().__init__()
        strides = [backbone.strides[name] for name in config.in_features]
        self.box_pooler = ROIPooler(config.pooler, strides)
        self.head_series = nn.ModuleList(Stage(config) for _ in range(config.stages))

    def forward(self, maps: FeatureMaps, proposals: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Detect objects from the proposals.

        Args:
            maps: of the N images.
            proposals: Float[N, P, C], the initial features.
            boxes: Float32[N, P, 4] xyxy in input pixels, the initial boxes.

        Returns:
            Class logits Float32[N, P, K] and boxes Float32[N, P, 4], which may exceed the image.
        """
        counts, shape = [boxes.shape[1]] * len(boxes), boxes.shape
        boxes = boxes.flatten(0, 1)
        for stage in self.head_series:
            pooled = self.box_pooler(maps, boxes, counts)
            # Pooled regions have their channels last in memory, so that nothing is copied.
            regions = pooled.permute(0, 2, 3, 1).flatten(1, 2)
            proposals, boxes = stage(proposals, boxes, regions)
        last = self.head_series[-1]
        assert isinstance(last, Stage)
        return last.classify(proposals), boxes.view(shape)


class SparseRCNN(Network):
    """A fixed number of detections for each image, of any score."""

    def __init__(self, config: ModelConfig, family: SparseRCNNConfig) -> None:
        super().__init__(config)
        self.family = family
        self.init_proposal_features = nn.Embedding(family.num_proposals, family.dim)
        # Centres, widths and heights as shares of the image's.
        self.init_proposal_boxes = nn.Embedding(family.num_proposals, 4)
        self.head = DynamicHead(self.backbone, family)

    def inference(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[ModelOutput]:
        """See `Network.inference`."""
        maps = FeatureMaps.for_pooling([features[name] for name in self.family.in_features])
        shares = self.init_proposal_boxes.weight
        x, y, width, height = shares.unbind(dim=1)
        initial = around(x, y, 0.5 * width, 0.5 * height)
        boxes = initial * limits(sizes_hw, shares.device)[:, None]
        proposals = self.init_proposal_features.weight.to(maps.dtype)
        logits, boxes = self.head(maps, proposals.expand(len(boxes), -1, -1), boxes)
        scaled = rescale(self._select(logits, boxes), sizes_hw, original_sizes_hw)
        return [ModelOutput(image) for image in scaled.by_image()]

    def _select(self, logits: Tensor, boxes: Tensor) -> Instances:
        """Choose the best pairs of a proposal and a class, as many as there are proposals.

        Args:
            logits: Float32[N, P, K], or [N, P, K + 1] with that of "no object" last.
            boxes: Float32[N, P, 4].
        """
        count = self.family.num_proposals
        if self.family.sigmoid_scores:
            scores, pairs = logits.sigmoid().flatten(1).topk(count, dim=1)
            rows, classes = pairs // logits.shape[2], pairs % logits.shape[2]
        else:
            best, best_classes = logits.softmax(dim=2)[:, :, :-1].max(dim=2)
            scores, rows = best.sort(dim=1, descending=True)
            classes = best_classes.gather(1, rows)
        chosen = boxes.gather(1, rows[:, :, None].expand(-1, -1, 4))
        counts = [count] * len(boxes)
        return Instances(chosen.flatten(0, 1), scores.flatten(), classes.flatten(), counts)


def _layers(dim: int, count: int) -> nn.Sequential:
    """Fully connected layers, each with a norm and a ReLU."""
    layers = nn.Sequential()
    for _ in range(count):
        layers.extend((Linear(dim, dim, bias=False), nn.LayerNorm(dim), nn.ReLU(inplace=True)))
    return layers
