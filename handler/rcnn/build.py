"""Builds a network from its config and weights."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from handler.rcnn.checkpoint import Weights, load_weights
from handler.rcnn.config.dense import RetinaNetConfig, SemanticConfig
from handler.rcnn.config.model import (
    ModelConfig,
    PanopticConfig,
    ProposalNetworkConfig,
    RCNNConfig,
)
from handler.rcnn.generalized_rcnn import GeneralizedRCNN
from handler.rcnn.network import Network
from handler.rcnn.optimise import optimise
from handler.rcnn.panoptic_fpn import PanopticFPN
from handler.rcnn.proposal_network import ProposalNetwork
from handler.rcnn.retinanet import RetinaNet
from handler.rcnn.semantic import SemanticSegmentor


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
