"""Meta-architectures and their construction (`detectron2.modeling.meta_arch`)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from d2serve.model.config import (
    CASCADE_HEADS,
    RES5_HEADS,
    AnyBackboneConfig,
    BackboneConfig,
    ModelConfig,
    PanopticConfig,
    ProposalNetworkConfig,
    RCNNConfig,
    RetinaNetConfig,
    ROIHeadsConfig,
    SemanticConfig,
)
from d2serve.model.fpn import Backbone
from d2serve.model.network import Network
from d2serve.model.optimise import optimise
from d2serve.model.retinanet import RetinaNet
from d2serve.model.roi_heads import CascadeROIHeads, Res5ROIHeads, StandardROIHeads
from d2serve.model.rpn import RPN, Proposals
from d2serve.model.semantic_seg import SemanticHead, SemanticSegmentor, classes_of_pixels
from d2serve.model.structures import Found, Instances, SizeHW, rescale
from d2serve.model.weights import Weights, load_weights

ROIHeads = StandardROIHeads | Res5ROIHeads


class GeneralizedRCNN(Network):
    """Proposals, and the heads that look at each of them."""

    def __init__(self, config: ModelConfig, family: RCNNConfig) -> None:
        super().__init__(config)
        self.proposal_generator = RPN(self.backbone, family.rpn)
        self.roi_heads = build_roi_heads(self.backbone, config.backbone, family.roi_heads)

    def find(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[Found]:
        """See `Network.find`."""
        proposals = self.proposal_generator(features, sizes_hw)
        instances = self.roi_heads(features, proposals, sizes_hw)
        scaled = rescale(instances, sizes_hw, original_sizes_hw)
        return [Found(image) for image in scaled.by_image()]


def build_roi_heads(
    backbone: Backbone, backbone_config: AnyBackboneConfig, config: ROIHeadsConfig
) -> ROIHeads:
    """The heads that MODEL.ROI_HEADS.NAME asks for."""
    if config.name == RES5_HEADS and isinstance(backbone_config, BackboneConfig):
        return Res5ROIHeads(backbone, backbone_config.resnet, config)
    heads = CascadeROIHeads if config.name == CASCADE_HEADS else StandardROIHeads
    return heads(backbone, config)


class PanopticFPN(GeneralizedRCNN):
    """Instances, and a class for every pixel; whoever pastes the masks combines the two."""

    def __init__(self, config: ModelConfig, family: PanopticConfig) -> None:
        super().__init__(config, family.rcnn)
        self.sem_seg_head = SemanticHead(self.backbone, family.semantic)

    def find(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[Found]:
        """See `Network.find`."""
        found = super().find(features, sizes_hw, original_sizes_hw)
        logits = self.sem_seg_head(features)
        return [
            replace(image, semantic=classes_of_pixels(*sizes))
            for image, *sizes in zip(found, logits, sizes_hw, original_sizes_hw, strict=True)
        ]


class ProposalNetwork(Network):
    """Boxes that may hold an object, all of one class; the score is their objectness."""

    def __init__(self, config: ModelConfig, family: ProposalNetworkConfig) -> None:
        super().__init__(config)
        self.proposal_generator = RPN(self.backbone, family.rpn)

    def find(
        self,
        features: dict[str, Tensor],
        sizes_hw: Sequence[SizeHW],
        original_sizes_hw: Sequence[SizeHW],
    ) -> list[Found]:
        """See `Network.find`."""
        proposals = self.proposal_generator(features, sizes_hw)
        scaled = rescale(_as_instances(proposals), sizes_hw, original_sizes_hw)
        return [Found(image) for image in scaled.by_image()]


def _as_instances(proposals: Proposals) -> Instances:
    classes = torch.zeros(len(proposals.boxes), dtype=torch.int64, device=proposals.boxes.device)
    return Instances(proposals.boxes, proposals.logits.sigmoid(), classes, proposals.counts)


def build_model(config: ModelConfig, weights: Weights, device: torch.device) -> Network:
    """A network ready for inference on `device`.

    Raises:
        CheckpointError: the weights do not fit the config.
    """
    with Undrawn():
        model = build_network(config)
    load_weights(model, weights)
    return model.eval().requires_grad_(False).to(device)


def build_optimised(config: ModelConfig, weights: Weights, device: torch.device) -> Network:
    """As `build_model`, of weights that were an optimised network's; on the CPU none is copied.

    Raises:
        CheckpointError: the weights do not fit the config.
    """
    with Undrawn():
        model = build_network(config)
        _hollow(model)
        optimise(model)
    load_weights(model, weights)
    return model.eval().requires_grad_(False).to(device)


class Undrawn(TorchFunctionMode):
    """New layers keep whatever lies in their memory, since drawing weights to start a training from
    takes long."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Leaves out the drawing alone."""
        if func in (Tensor.uniform_, Tensor.normal_):
            return args[0]
        return func(*args, **(kwargs or {}))


def _hollow(model: nn.Module) -> None:
    """Takes the values of all that a state dict holds, so that to change it costs nothing."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        path, _, own_name = name.rpartition(".")
        empty = tensor.to("meta")
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, requires_grad=False)
        setattr(model.get_submodule(path), own_name, empty)


def build_network(config: ModelConfig) -> Network:
    """The network of the config's family, with weights that mean nothing yet."""
    match config.family:
        case RCNNConfig() as family:
            return GeneralizedRCNN(config, family)
        case PanopticConfig() as family:
            return PanopticFPN(config, family)
        case RetinaNetConfig() as family:
            return RetinaNet(config, family)
        case SemanticConfig() as family:
            return SemanticSegmentor(config, family)
        case ProposalNetworkConfig() as family:
            return ProposalNetwork(config, family)
