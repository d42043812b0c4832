"""Standard, cascade and Res5 ROI heads (`detectron2.modeling.roi_heads`)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from d2serve.model.backbone_config import ResNetConfig
from d2serve.model.box_head import Candidates, ConvFCHead, build_box_predictor, select_boxes
from d2serve.model.fpn import Backbone
from d2serve.model.heads_config import ROIHeadsConfig
from d2serve.model.keypoint_head import KeypointHead
from d2serve.model.mask_head import MaskHead
from d2serve.model.poolers import FeatureMaps, ROIPooler
from d2serve.model.resnet import RES5, make_stage, stage_shape
from d2serve.model.rpn import Proposals
from d2serve.model.structures import Instances, SizeHW, apply_deltas, clip, image_indices, limits


class StandardROIHeads(nn.Module):
    """A box head and, if configured, mask and keypoint heads on its boxes."""

    def __init__(self, backbone: Backbone, config: ROIHeadsConfig) -> None:
        super().__init__()
        self.config = config
        strides = [backbone.strides[name] for name in config.in_features]
        in_channels = backbone.channels[config.in_features[0]]
        self.box_pooler = ROIPooler(config.pooler, strides)
        self._add_box_heads(in_channels)
        self.mask_head: MaskHead | None = None
        if config.mask is not None:
            self.mask_pooler = ROIPooler(config.mask.pooler, strides)
            self.mask_head = MaskHead(in_channels, config.predictor.num_classes, config.mask)
        self.keypoint_head: KeypointHead | None = None
        if config.keypoint is not None:
            self.keypoint_pooler = ROIPooler(config.keypoint.pooler, strides)
            self.keypoint_head = KeypointHead(in_channels, config.keypoint)

    def _add_box_heads(self, in_channels: int) -> None:
        config = self.config
        self.box_head: nn.Module = ConvFCHead(in_channels, config.pooler.resolution, config.box)
        self.box_predictor: nn.Module = build_box_predictor(
            self.box_head.out_size, config.predictor
        )

    def forward(
        self, features: dict[str, Tensor], proposals: Proposals, sizes_hw: Sequence[SizeHW]
    ) -> Instances:
        """Detect the instances of every image, in input pixels.

        Args:
            features: by name Float[N, C, H/s, W/s].
            proposals: of the N images.
            sizes_hw: heights and widths of the resized images, without padding.
        """
        maps = pooling_maps(features, self.config)
        instances = self.detect(maps, proposals, sizes_hw)
        boxes, counts = instances.boxes, instances.counts
        if self.mask_head is not None:
            instances = replace(instances, masks=self.predict_masks(maps, instances))
        if self.keypoint_head is not None:
            pooled = self.keypoint_pooler(maps, boxes, counts)
            instances = replace(instances, keypoints=self.keypoint_head.predict(pooled, boxes))
        return instances

    def detect(
        self, maps: FeatureMaps, proposals: Proposals, sizes_hw: Sequence[SizeHW]
    ) -> Instances:
        """Detect the boxes of the instances."""
        candidates = self.predict_boxes(maps, proposals, sizes_hw)
        return select_boxes(candidates, sizes_hw, self.config.selection)

    def predict_masks(self, maps: FeatureMaps, instances: Instances) -> Tensor:
        """Float32[N, M, M]: the masks of instances with any boxes, see `MaskHead.predict`."""
        assert self.mask_head is not None
        pooled = self.mask_pooler(maps, instances.boxes, instances.counts)
        return self.mask_head.predict(pooled, instances.classes)

    def predict_boxes(
        self, maps: FeatureMaps, proposals: Proposals, sizes_hw: Sequence[SizeHW]
    ) -> Candidates:
        """Run the box head on the proposals."""
        del sizes_hw  # only a cascade clips boxes
        features = self.box_head(self.box_pooler(maps, proposals.boxes, proposals.counts))
        candidates: Candidates = self.box_predictor(features, proposals.boxes, proposals.counts)
        return candidates


class CascadeROIHeads(StandardROIHeads):
    """A sequence of box heads: each refines the boxes of the previous one; scores are averaged."""

    box_head: nn.ModuleList
    box_predictor: nn.ModuleList

    def _add_box_heads(self, in_channels: int) -> None:
        config = self.config
        self.box_head, self.box_predictor = nn.ModuleList(), nn.ModuleList()
        for weights in config.cascade_weights:
            head = ConvFCHead(in_channels, config.pooler.resolution, config.box)
            predictor = replace(config.predictor, box_weights=weights)
            self.box_head.append(head)
            self.box_predictor.append(build_box_predictor(head.out_size, predictor))

    def predict_boxes(
        self, maps: FeatureMaps, proposals: Proposals, sizes_hw: Sequence[SizeHW]
    ) -> Candidates:
        """Run all stages; the result has the last stage's boxes and the stages' mean scores."""
        boxes, counts = proposals.boxes, proposals.counts
        borders = limits(sizes_hw, boxes.device)[image_indices(counts, boxes.device)]
        stages: list[Candidates] = []
        for head, predictor in zip(self.box_head, self.box_predictor, strict=True):
            if stages:
                last = stages[-1]
                refined = apply_deltas(last.deltas, last.proposals, last.weights)[:, 0]
                boxes = clip(refined, borders)
            features = head(self.box_pooler(maps, boxes, counts))
            stages.append(predictor(features, boxes, counts))
        scores = torch.stack([stage.scores for stage in stages]).sum(dim=0) * (1.0 / len(stages))
        return replace(stages[-1], scores=scores)


class Res5ROIHeads(nn.Module):
    """Regions of res4 go through the backbone's stage res5, then to the box and mask heads (C4)."""

    def __init__(self, backbone: Backbone, resnet: ResNetConfig, config: ROIHeadsConfig) -> None:
        super().__init__()
        self.config = config
        [feature] = config.in_features
        self.pooler = ROIPooler(config.pooler, [backbone.strides[feature]])
        shape = stage_shape(RES5, resnet, stride=2, dilation=1)
        self.res5 = make_stage(RES5, backbone.channels[feature], shape, resnet)
        self.box_predictor = build_box_predictor(shape.out_channels, config.predictor)
        self.mask_head: MaskHead | None = None
        if config.mask is not None:
            self.mask_head = MaskHead(shape.out_channels, config.predictor.num_classes, config.mask)

    def forward(
        self, features: dict[str, Tensor], proposals: Proposals, sizes_hw: Sequence[SizeHW]
    ) -> Instances:
        """See `StandardROIHeads.forward`."""
        maps = pooling_maps(features, self.config)
        instances = self.detect(maps, proposals, sizes_hw)
        if self.mask_head is None:
            return instances
        return replace(instances, masks=self.predict_masks(maps, instances))

    def detect(
        self, maps: FeatureMaps, proposals: Proposals, sizes_hw: Sequence[SizeHW]
    ) -> Instances:
        """See `StandardROIHeads.detect`."""
        boxes, counts = proposals.boxes, proposals.counts
        regions = self.res5(self.pooler(maps, boxes, counts))
        candidates = self.box_predictor(regions.mean(dim=(2, 3)), boxes, counts)
        return select_boxes(candidates, sizes_hw, self.config.selection)

    def predict_masks(self, maps: FeatureMaps, instances: Instances) -> Tensor:
        """See `StandardROIHeads.predict_masks`."""
        assert self.mask_head is not None
        regions = self.res5(self.pooler(maps, instances.boxes, instances.counts))
        return self.mask_head.predict(regions, instances.classes)


def pooling_maps(features: dict[str, Tensor], config: ROIHeadsConfig) -> FeatureMaps:
    """The heads' input features, ready for pooling."""
    return FeatureMaps.for_pooling([features[name] for name in config.in_features])
