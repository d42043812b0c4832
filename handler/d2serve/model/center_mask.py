"""CenterMask: masks of the detections of FCOS, and their predicted quality (Lee and Park 2020)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.config import ModelConfig
from d2serve.model.fcos import FCOS
from d2serve.model.fpn import Backbone
from d2serve.model.heads_config import CenterMaskConfig, MaskIoUConfig
from d2serve.model.layers import Conv2d
from d2serve.model.mask_head import MaskHead
from d2serve.model.network import Network
from d2serve.model.poolers import FeatureMaps, ROIPooler
from d2serve.model.preprocessing import to_device
from d2serve.model.structures import Instances, ModelOutput, SizeHW, image_indices, rescale

FC_CHANNELS = 1024


class MaskIoUHead(nn.Module):
    """Predicts the IoU of a mask with the object (Huang et al. 2019, Mask Scoring R-CNN)."""

    def __init__(self, in_channels: int, side: int, classes: int, config: MaskIoUConfig) -> None:
        super().__init__()
        in_channels += 1
        self.convs = [f"maskiou_fcn{index + 1}" for index in range(config.num_conv)]
        for name in self.convs:
            stride = 2 if name == self.convs[-1] else 1
            conv = Conv2d(in_channels, config.conv_dim, 3, stride=stride, relu=True)
            self.add_module(name, conv)
            in_channels = config.conv_dim
        self.maskiou_fc1 = nn.Linear(in_channels * (side // 2) ** 2, FC_CHANNELS)
        self.maskiou_fc2 = nn.Linear(FC_CHANNELS, FC_CHANNELS)
        self.maskiou = nn.Linear(FC_CHANNELS, classes)

    def forward(self, pooled: Tensor, masks: Tensor, classes: Tensor) -> Tensor:
        """Predict the IoU of each mask.

        Args:
            pooled: Float[M, C, S, S].
            masks: Float32[M, 2S, 2S], probabilities.
            classes: Int64[M].

        Returns:
            Float32[M]; not limited to 0..1.
        """
        at_half_size = F.max_pool2d(masks[:, None], 2).to(pooled.dtype)
        hidden = torch.cat((pooled, at_half_size), dim=1)
        for name in self.convs:
            hidden = self.get_submodule(name)(hidden)
        hidden = F.relu_(self.maskiou_fc1(hidden.flatten(1)))
        hidden = F.relu_(self.maskiou_fc2(hidden))
        return self.maskiou(hidden).gather(1, classes[:, None])[:, 0].float()


class CenterROIHeads(nn.Module):
    """A mask head on the detections, and one that predicts the masks' quality."""

    def __init__(self, backbone: Backbone, config: CenterMaskConfig) -> None:
        super().__init__()
        self.config = config
        self.strides = [backbone.strides[name] for name in config.in_features]
        in_channels = backbone.channels[config.in_features[0]]
        self.mask_head: MaskHead | None = None
        self.maskiou_head: MaskIoUHead | None = None
        if config.mask is None:
            return
        self.mask_pooler = ROIPooler(config.mask.pooler, self.strides)
        self.mask_head = MaskHead(in_channels, config.num_classes, config.mask)
        if config.mask_iou is not None:
            side = config.mask.pooler.resolution
            self.maskiou_head = MaskIoUHead(in_channels, side, config.num_classes, config.mask_iou)

    def forward(
        self, features: dict[str, Tensor], instances: Instances, sizes_hw: Sequence[SizeHW]
    ) -> Instances:
        """Predict the masks of detections.

        Args:
            features: by name Float[N, C, H/s, W/s].
            instances: of the N images.
            sizes_hw: heights and widths of the resized images, without padding.
        """
        if self.mask_head is None:
            return instances
        maps = FeatureMaps.for_pooling([features[name] for name in self.config.in_features])
        boxes, counts, classes = instances.boxes, instances.counts, instances.classes
        levels = None
        if self.config.level_by_ratio:
            levels = levels_by_ratio(boxes, counts, sizes_hw, self.strides)
        pooled = self.mask_pooler(maps, boxes, counts, levels)
        masks = self.mask_head.predict(pooled, classes)
        if self.maskiou_head is None:
            return replace(instances, masks=masks)
        quality = self.maskiou_head(pooled, masks, classes)
        return replace(instances, masks=masks, mask_scores=instances.scores * quality)


def levels_by_ratio(
    boxes: Tensor, counts: Sequence[int], sizes_hw: Sequence[SizeHW], strides: Sequence[int]
) -> Tensor:
    """Int64[P]: the index of the level for a box's share of the image (equation 2 of the paper).

    Args:
        boxes: Float32[P, 4] xyxy in input pixels, one image after the other.
        counts: number of boxes of each image.
        sizes_hw: heights and widths of the images.
        strides: of the levels, finest first, powers of 2.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    image_areas = torch.tensor([float(height * width) for height, width in sizes_hw])
    images = image_indices(counts, boxes.device)
    ratios = to_device(image_areas, boxes.device)[images] / (sides[:, 0] * sides[:, 1])
    first, last = (stride.bit_length() - 1 for stride in (strides[0], strides[-1]))
    levels = torch.ceil(last - torch.log2(ratios))
    return levels.clamp(first, last).long() - first


class CenterMask(Network):
    """FCOS, then masks of its detections."""

    def __init__(self, config: ModelConfig, family: CenterMaskConfig) -> None:
        super().__init__(config)
        self.proposal_generator = FCOS(self.backbone, family.fcos)
        self.roi_heads = CenterROIHeads(self.backbone, family)

    def inference(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[ModelOutput]:
        """See `Network.inference`."""
        instances = self.proposal_generator(features).instances
        instances = self.roi_heads(features, instances, sizes_hw)
        scaled = rescale(instances, sizes_hw, original_sizes_hw)
        return [ModelOutput(image) for image in scaled.by_image()]
