"""Cascade R-CNN (Cai and Vasconcelos 2018; `detectron2.modeling.roi_heads.cascade_rcnn`)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from handler.rcnn.box_head import BoxPredictor, ConvFCHead
from handler.rcnn.boxes import clip
from handler.rcnn.instances import SizeHW, concatenate
from handler.rcnn.roi_heads import StandardROIHeads


class CascadeROIHeads(StandardROIHeads):
    """Box heads in a row: each refines the boxes of the one before; their scores are averaged."""

    box_head: nn.ModuleList
    box_predictor: nn.ModuleList

    def score(
        self, levels: Sequence[Tensor], proposals: Sequence[Tensor], sizes_hw: Sequence[SizeHW]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Per image Float[P, K] scores and Float32[P, 1, 4] boxes for its proposals."""
        _, counts = concatenate(proposals)
        boxes = list(proposals)
        stage_scores: list[Tensor] = []
        for head, predictor in zip(self.box_head, self.box_predictor, strict=True):
            if stage_scores:
                boxes = [clip(image, size) for image, size in zip(boxes, sizes_hw, strict=True)]
            features = head(self.box_pooler(levels, boxes))
            scores, refined = predictor(features, torch.cat(boxes))
            stage_scores.append(scores)
            boxes = list(torch.split(refined[:, 0], counts))
        mean = torch.stack(stage_scores).sum(dim=0) * (1.0 / len(stage_scores))
        return list(torch.split(mean, counts)), [image[:, None] for image in boxes]

    def _add_box_heads(self, in_channels: int) -> None:
        config = self.config
        self.box_head, self.box_predictor = nn.ModuleList(), nn.ModuleList()
        for weights in config.cascade_weights:
            head = ConvFCHead(in_channels, config.pooler.resolution, config.box)
            predictor = replace(config.predictor, box_weights=weights)
            self.box_head.append(head)
            self.box_predictor.append(BoxPredictor(head.out_size, predictor))
