"""The box head: class scores and refined boxes from proposals (Fast R-CNN, Girshick 2015)."""

from collections.abc import Sequence

from torch import Tensor, nn

from handler.rcnn.boxes import apply_deltas, clip
from handler.rcnn.config.roi_heads import BoxHeadConfig, BoxPredictorConfig, SelectionConfig
from handler.rcnn.instances import Instances, SizeHW
from handler.rcnn.layers import Conv2d
from handler.rcnn.nms import batched_nms


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


class BoxPredictor(nn.Module):
    """Scores and box deltas for every class (`FastRCNNOutputLayers`)."""

    def __init__(self, in_size: int, config: BoxPredictorConfig) -> None:
        super().__init__()
        self.config = config
        box_classes = 1 if config.class_agnostic else config.num_classes
        self.cls_score = nn.Linear(in_size, config.num_classes + 1)
        self.bbox_pred = nn.Linear(in_size, box_classes * 4)

    def forward(self, features: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:
        """Float[M, ...] and Float32[M, 4] -> Float32[M, K] scores without the background's, and
        Float32[M, K, 4] boxes, or Float32[M, 1, 4] where class-agnostic."""
        features = features.flatten(1).to(self.cls_score.weight.dtype)
        logits = self.cls_score(features)
        scores = logits.sigmoid() if self.config.sigmoid_scores else logits.softmax(dim=-1)
        boxes = apply_deltas(self.bbox_pred(features), proposals, self.config.box_weights)
        return scores[:, :-1], boxes


def select_boxes(
    scores: Sequence[Tensor],
    boxes: Sequence[Tensor],
    sizes_hw: Sequence[SizeHW],
    config: SelectionConfig,
) -> list[Instances]:
    """Threshold, class-wise NMS and top-k of every image (`fast_rcnn_inference`).

    Args:
        scores: per image Float[P, K] in 0..1.
        boxes: per image Float32[P, K or 1, 4] xyxy in input pixels.
        sizes_hw: what boxes are clipped to.
    """
    return [_select_of_image(*image, config) for image in zip(scores, boxes, sizes_hw, strict=True)]


def _select_of_image(
    scores: Tensor, boxes: Tensor, size_hw: SizeHW, config: SelectionConfig
) -> Instances:
    finite = boxes.flatten(1).isfinite().all(dim=1) & scores.isfinite().all(dim=1)
    good = (scores > config.score_threshold) & finite[:, None]
    rows, classes = good.nonzero(as_tuple=True)
    chosen = boxes[rows, 0] if boxes.shape[1] == 1 else boxes[rows, classes]
    chosen, chosen_scores = clip(chosen, size_hw), scores[rows, classes].float()
    keep = batched_nms(chosen, chosen_scores, classes, config.nms_threshold)
    return Instances(chosen, chosen_scores, classes).select(keep[: config.max_detections])
