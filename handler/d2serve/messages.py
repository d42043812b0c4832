"""HTTP requests, request options and response envelopes as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum, auto

# The header by which a front door says when a request arrived: seconds of this machine's monotonic
# clock, which all of its processes share.
ARRIVED = "x-d2serve-arrived"
# And by which it numbers its client, to tell later that the client has gone.
CLIENT = "x-d2serve-client"


@dataclass(frozen=True)
class Part:
    """One body: the whole request's, or one file of a multipart request.

    `content_type` is as the client sent it, empty where it sent none.
    """

    content_type: str
    body: bytes


@dataclass(frozen=True)
class HttpRequest:
    """Headers with lower-case names, and the parts that may hold pictures.

    `query` holds the query string's values, and a form's fields that are no files; `request_id`
    is the server's name for the request. `abandoned` says that its client has hung up.
    """

    headers: Mapping[str, str]
    parts: tuple[Part, ...]
    query: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    abandoned: bool = False


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
# The tensors of an Open Inference answer; image_ids tells several pictures apart.
OUTPUT_NAMES = (
    "boxes",
    "scores",
    "classes",
    "masks",
    "keypoints",
    "panoptic",
    "semantic",
    "image_ids",
)


class Style(Enum):
    """The shapes of bodies that have answers of their own."""

    PLAIN = auto()
    """One picture's object as it is, several under `predictions`."""
    BATCH = auto()
    """One array with a leading N, of 1 too, which the formats for SageMaker Clarify keep."""
    INSTANCES = auto()
    """KServe v1: `instances` in, `predictions` out, a single one too."""
    OPEN_INFERENCE = auto()
    """Open Inference Protocol v2: tensors in, tensors out."""


@dataclass(frozen=True)
class Wrapping:
    """A style, and what only the Open Inference Protocol has.

    Attributes:
        style: which shape.
        id: the client's name for its request, to be sent back; None where it gave none.
        outputs: names of the tensors that it wants; empty for all.
    """

    style: Style = Style.PLAIN
    id: str | None = None
    outputs: tuple[str, ...] = ()
