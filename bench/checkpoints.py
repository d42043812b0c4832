"""Models as the files that archives are made of."""

from pathlib import Path

import torch

from tests.goldens.cases import GoldenModel


def checkpoint_of(model: GoldenModel, folder: Path) -> Path:
    """The model's, or where its weights are drawn, a file with them."""
    if model.checkpoint is not None:
        return model.checkpoint
    path = folder / "model.pth"
    torch.save({"model": model.build().state_dict()}, path)
    return path
