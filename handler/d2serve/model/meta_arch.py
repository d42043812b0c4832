"""Meta-architectures and their construction (`detectron2.modeling.meta_arch`)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from d2serve.model.backbone_config import AnyBackboneConfig, BackboneConfig, ResNetConfig
from d2serve.model.center_mask import CenterMask
from d2serve.model.condinst import CondInst
from d2serve.model.config import (
    ModelConfig,
    PanopticConfig,
    ProposalNetworkConfig,
    RCNNConfig,
    RetinaNetConfig,
)
from d2serve.model.densepose_head import DensePoseROIHeads
from d2serve.model.fcos import OneStageDetector
from d2serve.model.fcos_config import CondInstConfig, FCOSConfig
from d2serve.model.fpn import Backbone
from d2serve.model.heads_config import (
    CASCADE_HEADS,
    RES5_HEADS,
    CenterMaskConfig,
    ROIHeadsConfig,
    SemanticConfig,
)
from d2serve.model.layers import ChannelAffine
from d2serve.model.mask_dino import MaskDINO
from d2serve.model.mask_dino_config import MaskDINOConfig
from d2serve.model.mask_former import MaskFormer
from d2serve.model.mask_former_config import MaskFormerConfig
from d2serve.model.network import Network
from d2serve.model.optimize import optimize
from d2serve.model.retinanet import RetinaNet
from d2serve.model.roi_heads import CascadeROIHeads, Res5ROIHeads, StandardROIHeads
from d2serve.model.rpn import RPN, Proposals
from d2serve.model.semantic_seg import SemanticHead, SemanticSegmentor, pixel_classes
from d2serve.model.sparse_rcnn import SparseRCNN
from d2serve.model.sparse_rcnn_config import SparseRCNNConfig
from d2serve.model.structures import Instances, ModelOutput, SizeHW, rescale
from d2serve.model.weights import Weights, load_weights


class GeneralizedRCNN(Network):
    """Proposals, then ROI heads on each of them."""

    def __init__(self, config: ModelConfig, family: RCNNConfig) -> None:
        super().__init__(config)
        self.proposal_generator = RPN(self.backbone, family.rpn)
        self.roi_heads = build_roi_heads(self.backbone, config.backbone, family.roi_heads)
        channels = self.backbone.channels[family.rpn.in_features[0]]
        self.affine_rpn = ChannelAffine(channels) if family.rpn.decoupled else None
        self.affine_rcnn = ChannelAffine(channels) if family.roi_heads.decoupled else None

    def inference(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[ModelOutput]:
        """See `Network.inference`."""
        proposals = self.propose(features, sizes_hw)
        instances = self.roi_heads(self.head_features(features), proposals, sizes_hw)
        scaled = rescale(instances, sizes_hw, original_sizes_hw)
        return [ModelOutput(image) for image in scaled.by_image()]

    def propose(self, features: dict[str, Tensor], sizes_hw: Sequence[SizeHW]) -> Proposals:
        """Propose regions in images of these heights and widths."""
        generator = self.proposal_generator
        maps = _transformed(features, generator.config.in_features, self.affine_rpn)
        proposals: Proposals = generator(maps, sizes_hw)
        return proposals

    def head_features(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The features as the ROI heads take them."""
        return _transformed(features, self.roi_heads.config.in_features, self.affine_rcnn)


def _transformed(
    features: dict[str, Tensor], names: Sequence[str], affine: ChannelAffine | None
) -> dict[str, Tensor]:
    if affine is None:
        return features
    return {name: affine(features[name]) for name in names}


def build_roi_heads(
    backbone: Backbone, backbone_config: AnyBackboneConfig, config: ROIHeadsConfig
) -> StandardROIHeads | Res5ROIHeads:
    """Build the heads that `config.name` selects (MODEL.ROI_HEADS.NAME)."""
    if config.name == RES5_HEADS:
        assert isinstance(backbone_config, BackboneConfig), "checked by the reader"
        assert isinstance(backbone_config.bottom_up, ResNetConfig), "checked by the reader"
        return Res5ROIHeads(backbone, backbone_config.bottom_up, config)
    if config.densepose is not None:
        return DensePoseROIHeads(backbone, config, config.densepose)
    heads = CascadeROIHeads if config.name == CASCADE_HEADS else StandardROIHeads
    return heads(backbone, config)


class PanopticFPN(GeneralizedRCNN):
    """Instances and a class for every pixel; `masks.panoptic` combines the two."""

    def __init__(self, config: ModelConfig, instances: RCNNConfig, head: SemanticConfig) -> None:
        super().__init__(config, instances)
        self.sem_seg_head = SemanticHead(self.backbone, head)

    def inference(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[ModelOutput]:
        """See `Network.inference`."""
        outputs = super().inference(features, sizes_hw, original_sizes_hw)
        logits = self.sem_seg_head(features)
        return _with_pixel_classes(outputs, logits, sizes_hw, original_sizes_hw)


class PanopticCenterMask(CenterMask):
    """A `PanopticFPN` whose instances are those of CenterMask."""

    def __init__(
        self, config: ModelConfig, instances: CenterMaskConfig, head: SemanticConfig
    ) -> None:
        super().__init__(config, instances)
        self.sem_seg_head = SemanticHead(self.backbone, head)

    def inference(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[ModelOutput]:
        """See `Network.inference`."""
        outputs = super().inference(features, sizes_hw, original_sizes_hw)
        logits = self.sem_seg_head(features)
        return _with_pixel_classes(outputs, logits, sizes_hw, original_sizes_hw)


def _with_pixel_classes(
    outputs: Sequence[ModelOutput],
    logits: Sequence[Tensor],
    sizes_hw: Sequence[SizeHW],
    original_sizes_hw: Sequence[SizeHW],
) -> list[ModelOutput]:
    return [
        replace(output, semantic=pixel_classes(image, size_hw, original_hw))
        for output, image, size_hw, original_hw in zip(
            outputs, logits, sizes_hw, original_sizes_hw, strict=True
        )
    ]


def build_panoptic(config: ModelConfig, family: PanopticConfig) -> Network:
    """Build the network whose instances `family.rcnn` describes."""
    if isinstance(family.rcnn, CenterMaskConfig):
        return PanopticCenterMask(config, family.rcnn, family.semantic)
    return PanopticFPN(config, family.rcnn, family.semantic)


class ProposalNetwork(Network):
    """Proposals as instances of one class; their score is the objectness."""

    def __init__(self, config: ModelConfig, family: ProposalNetworkConfig) -> None:
        super().__init__(config)
        self.proposal_generator = RPN(self.backbone, family.rpn)

    def inference(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[ModelOutput]:
        """See `Network.inference`."""
        proposals = self.proposal_generator(features, sizes_hw)
        boxes = proposals.boxes
        classes = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        instances = Instances(boxes, proposals.logits.sigmoid(), classes, proposals.counts)
        scaled = rescale(instances, sizes_hw, original_sizes_hw)
        return [ModelOutput(image) for image in scaled.by_image()]


def build_optimized(config: ModelConfig, weights: Weights, device: torch.device) -> Network:
    """Build a network from the weights of an optimized one; on the CPU they are not copied.

    Raises:
        CheckpointError: the weights do not match the config.
    """
    with SkipInit():
        model = build_network(config)
        _move_to_meta(model)
        optimize(model)
    load_weights(model, weights)
    return model.eval().requires_grad_(False).to(device)


NETWORKS: dict[type[Any], Callable[[ModelConfig, Any], Network]] = {
    RCNNConfig: GeneralizedRCNN,
    PanopticConfig: build_panoptic,
    RetinaNetConfig: RetinaNet,
    FCOSConfig: OneStageDetector,
    CenterMaskConfig: CenterMask,
    CondInstConfig: CondInst,
    SparseRCNNConfig: SparseRCNN,
    MaskFormerConfig: MaskFormer,
    MaskDINOConfig: MaskDINO,
    SemanticConfig: SemanticSegmentor,
    ProposalNetworkConfig: ProposalNetwork,
}


def build_network(config: ModelConfig) -> Network:
    """Build the network of the config's family with uninitialized or random weights."""
    return NETWORKS[type(config.family)](config, config.family)


class SkipInit(TorchFunctionMode):
    """Leave new layers uninitialized, because random initialization for training takes long."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Skip the in-place random functions and call all other ones."""
        if func in (Tensor.uniform_, Tensor.normal_):
            return args[0]
        return func(*args, **(kwargs or {}))


def _move_to_meta(model: nn.Module) -> None:
    """Replace all weights by tensors without values, so that optimizing them costs nothing."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        path, _, own_name = name.rpartition(".")
        empty = tensor.to("meta")
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, requires_grad=False)
        setattr(model.get_submodule(path), own_name, empty)
