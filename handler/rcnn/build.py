"""Builds a network from its config and weights."""

import torch

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
from handler.rcnn.panoptic_fpn import PanopticFPN
from handler.rcnn.proposal_network import ProposalNetwork
from handler.rcnn.retinanet import RetinaNet
from handler.rcnn.semantic import SemanticSegmentor


def build_model(config: ModelConfig, weights: Weights, device: torch.device) -> Network:
    """A network ready for inference on `device`.

    Raises:
        CheckpointError: the weights do not fit the config.
    """
    model = build_network(config)
    load_weights(model, weights)
    return model.eval().requires_grad_(False).to(device)


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
