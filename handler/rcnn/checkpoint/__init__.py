"""Reads the checkpoints of Detectron2 and Detectron1 without running any code they may hold."""

from handler.rcnn.checkpoint.errors import CheckpointError
from handler.rcnn.checkpoint.fitting import is_derived, load_weights
from handler.rcnn.checkpoint.selection import Checkpoint, open_checkpoint, read_checkpoint
from handler.rcnn.checkpoint.stored import read_npz, read_weights, write_weights
from handler.rcnn.checkpoint.weights import Weights

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Weights",
    "is_derived",
    "load_weights",
    "open_checkpoint",
    "read_checkpoint",
    "read_npz",
    "read_weights",
    "write_weights",
]
