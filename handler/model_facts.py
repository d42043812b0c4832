"""What clients may know of the model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelFacts:
    """The served model, as requests and responses speak of it.

    Attributes:
        name: what the server calls the model.
        class_names: in the order of the class indices.
        score_threshold: the least score that the network lets through, 0..1.
        max_detections: how many detections of one picture the network gives at most.
        stuff_names: of the classes of `Detections.semantic`, in the order of their indices.
    """

    name: str
    class_names: tuple[str, ...]
    score_threshold: float
    max_detections: int
    stuff_names: tuple[str, ...] = ()
