"""Cascade R-CNN (Cai and Vasconcelos 2018; `detectron2.modeling.roi_heads.cascade_rcnn`)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from handler.rcnn.box_head import BoxPredictor, Candidates, ConvFCHead
from handler.rcnn.boxes import apply_deltas, clip
from handler.rcnn.instances import SizeHW, image_indices, limits
from handler.rcnn.pooler import Pyramid
from handler.rcnn.roi_heads import StandardROIHeads
from handler.rcnn.rpn import Proposals


class CascadeROIHeads(StandardROIHeads):
    """Box heads in a row: each refines the boxes of the one before; their scores are averaged."""

    box_head: nn.ModuleList
    box_predictor: nn.ModuleList

    def score(
        self, pyramid: Pyramid, proposals: Proposals, sizes_hw: Sequence[SizeHW]
    ) -> Candidates:
        """What the last stage makes of the boxes, with all stages' mean scores."""
        boxes, counts = proposals.boxes, proposals.counts
        borders = limits(sizes_hw, boxes.device)[image_indices(counts, boxes.device)]
        stages: list[Candidates] = []
        for head, predictor in zip(self.box_head, self.box_predictor, strict=True):
            if stages:
                boxes = clip(_refined(stages[-1]), borders)
            features = head(self.box_pooler(pyramid, boxes, counts))
            stages.append(predictor(features, boxes, counts))
        scores = torch.stack([stage.scores for stage in stages]).sum(dim=0) * (1.0 / len(stages))
        return replace(stages[-1], scores=scores)

    def _add_box_heads(self, in_channels: int) -> None:
        config = self.config
        self.box_head, self.box_predictor = nn.ModuleList(), nn.ModuleList()
        for weights in config.cascade_weights:
            head = ConvFCHead(in_channels, config.pooler.resolution, config.box)
            predictor = replace(config.predictor, box_weights=weights)
            self.box_head.append(head)
            self.box_predictor.append(BoxPredictor(head.out_size, predictor))


def _refined(stage: Candidates) -> Tensor:
    return apply_deltas(stage.deltas, stage.proposals, stage.weights)[:, 0]
