"""Detections in words."""

from collections.abc import Sequence

from handler.detections import Detections


def label_texts(detections: Detections, names: Sequence[str]) -> list[str]:
    """Such as "horse 99%", as people read them."""
    return [
        f"{names[index]} {score:.0%}"
        for index, score in zip(detections.classes, detections.scores, strict=True)
    ]
