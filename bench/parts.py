"""Parts of Mask R-CNN that other runtimes can run: the backbone, and the heads without the
selection of boxes between them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2serve.model.box_head import BoxPredictor
from d2serve.model.fpn import FPN
from d2serve.model.meta_arch import GeneralizedRCNN
from d2serve.model.roi_heads import StandardROIHeads, pooling_maps

MASKS = 100
BACKBONE = "backbone"


@dataclass(frozen=True)
class Part:
    """A part with its inputs for an image.

    Attributes:
        name: in the results.
        run: runs it in a network, in the precision of the inputs.
        exported: runs it in float32 with operators that ONNX has.
        inputs: Float32 tensors, and Int64 classes.
    """

    name: str
    run: Callable[[GeneralizedRCNN, Sequence[Tensor]], Sequence[Tensor]]
    exported: nn.Module
    inputs: Sequence[Tensor]

    def inputs_in(self, dtype: torch.dtype) -> list[Tensor]:
        """The inputs with floating-point numbers of a type."""
        return [each.to(dtype) if each.is_floating_point() else each for each in self.inputs]


class ExportedPyramid(nn.Module):
    """A pyramid for the export to ONNX, which loses additions in place to views."""

    def __init__(self, fpn: FPN) -> None:
        super().__init__()
        self.fpn = fpn

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Float[N, 3, H, W] -> for each level Float[N, C, H/s, W/s], p2 first."""
        maps, levels, above = self.fpn.bottom_up(images), list[Tensor](), None
        for level, name in reversed(self.fpn.stages.items()):
            fused = self.fpn.get_submodule(f"fpn_lateral{level}")(maps[name])
            if above is not None:
                fused = fused + F.interpolate(above, scale_factor=2.0, mode="nearest")
            levels.insert(0, self.fpn.get_submodule(f"fpn_output{level}")(fused))
            above = fused
        assert self.fpn.top_block is not None
        named = {**maps, **dict(zip(self.fpn.channels, levels, strict=False))}
        return (*levels, *self.fpn.top_block(named[self.fpn.top_source]))


class ExportedHead(nn.Module):
    """A head for the export, as it runs in a network."""

    def __init__(
        self,
        network: GeneralizedRCNN,
        run: Callable[[GeneralizedRCNN, Sequence[Tensor]], Sequence[Tensor]],
    ) -> None:
        super().__init__()
        self.network, self.run = network, run

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the head."""
        return tuple(self.run(self.network, inputs))


def parts_of(network: GeneralizedRCNN, images: Tensor) -> list[Part]:
    """The backbone, and the heads with what they get for images: up to 1,000 proposals of the
    network, and the first ones with arbitrary classes as boxes of masks.

    Args:
        network: a Mask R-CNN with a pyramid, in float32.
        images: Float32[1, 3, H, W], normalized and padded.
    """
    heads, size_hw = network.roi_heads, (images.shape[2], images.shape[3])
    assert isinstance(network.backbone, FPN)
    assert isinstance(heads, StandardROIHeads)
    features = network.backbone(images)
    proposals = network.propose(features, [size_hw])
    maps = pooling_maps(features, heads.config)
    regions = heads.box_pooler(maps, proposals.boxes, proposals.counts)
    boxes = proposals.boxes[:MASKS]
    mask_regions = heads.mask_pooler(maps, boxes, [len(boxes)])
    classes = torch.arange(len(boxes)) % heads.config.predictor.num_classes
    levels = [features[name] for name in network.proposal_generator.config.in_features]
    parts = [Part(BACKBONE, _backbone, ExportedPyramid(network.backbone), [images])]
    for name, run, inputs in (
        ("RPN head", _rpn_head, levels),
        ("box head", _box_head, [regions]),
        ("mask head", _mask_head, [mask_regions, classes]),
    ):
        parts.append(Part(name, run, ExportedHead(network, run), inputs))
    return parts


def _backbone(network: GeneralizedRCNN, inputs: Sequence[Tensor]) -> list[Tensor]:
    [images] = inputs
    levels = network.backbone(images)
    return [levels[name] for name in sorted(levels)]


def _rpn_head(network: GeneralizedRCNN, inputs: Sequence[Tensor]) -> list[Tensor]:
    head = network.proposal_generator.rpn_head
    return [output for level in inputs for output in head(level)]


def _box_head(network: GeneralizedRCNN, inputs: Sequence[Tensor]) -> list[Tensor]:
    [regions] = inputs
    heads = network.roi_heads
    assert isinstance(heads, StandardROIHeads)
    predictor = heads.box_predictor
    assert isinstance(predictor, BoxPredictor)
    features = heads.box_head(regions).flatten(1).to(predictor.cls_score.weight.dtype)
    return [predictor.predict_logits(features), predictor.bbox_pred(features)]


def _mask_head(network: GeneralizedRCNN, inputs: Sequence[Tensor]) -> list[Tensor]:
    regions, classes = inputs
    mask_head = network.roi_heads.mask_head
    assert mask_head is not None
    return [mask_head.predict(regions, classes)]
