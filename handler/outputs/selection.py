"""Which of a picture's detections a client wants."""

from dataclasses import replace

import numpy as np

from handler.detections import Detections
from handler.options import Options


def selected(detections: Detections, options: Options) -> Detections:
    """The best detections that the options let through, in their order; masks where wanted."""
    # In single precision, as the network compares: its own threshold must not drop any more.
    keep = detections.scores >= np.float32(options.score_threshold)
    if options.classes is not None:
        keep &= np.isin(detections.classes, list(options.classes))
    chosen = detections.select(np.flatnonzero(keep)[: options.max_detections])
    return replace(chosen, masks=None) if options.masks == "none" else chosen
