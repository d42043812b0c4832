"""Configuration of Sparse R-CNN."""

from dataclasses import dataclass

from d2serve.model.heads_config import PoolerConfig


@dataclass(frozen=True)
class SparseRCNNConfig:
    """A fixed number of learned proposals, which a sequence of stages refines.

    Attributes:
        in_features: names of the maps that regions are pooled from, of `dim` channels.
        num_proposals: also the number of detections of each image.
        stages: number of refinements (NUM_HEADS).
        dim: channels of a proposal's features.
        heads: of the attention among the proposals (NHEADS).
        dynamic_dim: channels between the two layers that each proposal has of its own.
        class_layers, box_layers: fully connected layers before the class scores, and before the
            boxes, of a stage.
        gelu: whether the feedforward networks have a GELU; else a ReLU.
        sigmoid_scores: whether a proposal has an independent score for each class, and may give
            several detections; else it has those of its best class.
    """

    in_features: tuple[str, ...]
    pooler: PoolerConfig
    num_classes: int
    num_proposals: int
    stages: int
    dim: int
    heads: int
    ffn_dim: int
    dynamic_dim: int
    class_layers: int
    box_layers: int
    gelu: bool
    sigmoid_scores: bool
