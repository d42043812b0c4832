"""Stand-ins for the parts of detectron2.structures that d2serve reads."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Boxes:
    """Float[N, 4] upright, or Float[N, 5] rotated."""

    tensor: Tensor

    def __getitem__(self, indices: Tensor) -> "Boxes":
        return Boxes(self.tensor[indices])

    def __len__(self) -> int:
        return len(self.tensor)


class Instances:
    """Fields of equal length."""

    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    def __getattr__(self, name: str) -> Any:
        return self._fields[name]

    def __getitem__(self, indices: Tensor) -> "Instances":
        return Instances(**{name: field[indices] for name, field in self._fields.items()})

    def __len__(self) -> int:
        return len(next(iter(self._fields.values())))

    def has(self, name: str) -> bool:
        return name in self._fields

    def get(self, name: str) -> Any:
        return self._fields[name]


def instances(*boxes: tuple[float, ...], scores: list[float], **fields: Any) -> Instances:
    """Instances of class 0, 1, ... in the given order."""
    return Instances(
        pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32)),
        scores=torch.tensor(scores),
        pred_classes=torch.arange(len(boxes)),
        **fields,
    )
