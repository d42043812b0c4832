"""Things and stuff in one row of categories: the model's classes, then its stuff."""

from handler.detections import Segment
from handler.model_facts import ModelFacts


def category_id(segment: Segment, model: ModelFacts) -> int:
    """A thing's class index, or the number of classes + stuff's class index: never the same."""
    return segment.class_index + (0 if segment.is_thing else len(model.class_names))


def category_name(segment: Segment, model: ModelFacts) -> str:
    """The thing's or the stuff's name.

    Raises:
        IndexError: the model has no such class.
    """
    return (model.class_names if segment.is_thing else model.stuff_names)[segment.class_index]
