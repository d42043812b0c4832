"""What a client may choose about one request."""

from dataclasses import dataclass, fields

RESPONSE_TYPES = {
    "json": "application/json",
    "jsonlines": "application/jsonlines",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "npy": "application/x-npy",
    "npz": "application/x-npz",
}
FORMATS = ("default", "clarify", "clarify-scores", "coco", "jumpstart")
MASKS = ("rle", "polygon", "none")
INPUT_LAYOUTS = ("auto", "hwc", "chw")
INPUT_COLORS = ("rgb", "bgr")
INPUT_RANGES = ("auto", "0-255", "0-1", "-1-1")


@dataclass(frozen=True)
class Options:
    """One request's options, all of them valid for the model that serves it.

    Attributes:
        score_threshold: the least score of a detection, from what the network itself applies to 1.
        max_detections: how many detections of a picture are kept, the best ones.
        response_type: one of RESPONSE_TYPES; the Accept header wins over it.
        format: one of FORMATS, what JSON looks like.
        masks: one of MASKS.
        classes: indices of the classes to keep; None keeps all.
        input_layout: one of INPUT_LAYOUTS, how arrays are read, as the next two.
        input_color: one of INPUT_COLORS.
        input_range: one of INPUT_RANGES.
    """

    score_threshold: float
    max_detections: int
    response_type: str = "json"
    format: str = "default"
    masks: str = "rle"
    classes: frozenset[int] | None = None
    input_layout: str = "auto"
    input_color: str = "rgb"
    input_range: str = "auto"


OPTION_NAMES = tuple(option.name for option in fields(Options))
