"""Builds a network from its config and weights."""

import torch

from handler.rcnn.checkpoint import Weights, load_weights
from handler.rcnn.config import RCNNConfig
from handler.rcnn.generalized_rcnn import GeneralizedRCNN


def build_model(config: RCNNConfig, weights: Weights, device: torch.device) -> GeneralizedRCNN:
    """A network ready for inference on `device`.

    Raises:
        CheckpointError: the weights do not fit the config.
    """
    model = GeneralizedRCNN(config)
    load_weights(model, weights)
    return model.eval().requires_grad_(False).to(device)
