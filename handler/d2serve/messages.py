"""HTTP requests, request options and response envelopes as plain data."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum, auto

# The package's version, which servers report.
VERSION = "0.2.0"

# Media types of request bodies.
IMAGE_TYPES = tuple(
    f"image/{subtype}" for subtype in ("jpeg", "jpg", "png", "webp", "bmp", "gif", "tiff")
)
NPY_TYPE = "application/x-npy"
JSON_TYPE = "application/json"
JSON_LINES_TYPE = "application/jsonlines"
# curl's default for -d and --data-binary.
FORM_TYPE = "application/x-www-form-urlencoded"
# An image, an NPY array or JSON, distinguished by the first bytes.
GENERIC_TYPES = (
    "application/octet-stream",
    "application/x-image",
    "",
    "binary/octet-stream",
    "text/plain",
    "*/*",
    FORM_TYPE,
)
# Other names of the types above.
TYPE_ALIASES = {
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/tif": "image/tiff",
    "image/x-ms-bmp": "image/bmp",
    "image/*": "application/x-image",
    "application/x-ndjson": JSON_LINES_TYPE,
    "application/jsonl": JSON_LINES_TYPE,
}
MULTIPART_TYPE = "multipart/form-data"
REQUEST_TYPES = (
    *IMAGE_TYPES,
    NPY_TYPE,
    JSON_TYPE,
    JSON_LINES_TYPE,
    MULTIPART_TYPE,
    *GENERIC_TYPES[:2],
)

# Values of the request options.
RESPONSE_TYPES = {
    "json": JSON_TYPE,
    "jsonlines": JSON_LINES_TYPE,
    "jpeg": "image/jpeg",
    "png": "image/png",
    "npy": NPY_TYPE,
    "npz": "application/x-npz",
}
FORMATS = ("default", "clarify", "clarify-scores", "coco", "jumpstart", "roboflow")
MASKS = ("rle", "polygon", "none")
DENSEPOSE = ("png", "none")
INPUT_LAYOUTS = ("auto", "hwc", "chw")
INPUT_COLORS = ("rgb", "bgr")
INPUT_RANGES = ("auto", "0-255", "0-1", "-1-1")

# Selects the model of `/invocations` in a query string, and is not an option.
MODEL_NAME = "model_name"
# Maximum size in bytes of a request line with its headers. TorchServe accepts 8192 bytes of header
# fields, and its proxy adds some of its own.
MAX_HEAD_BYTES = 8000
# Server-Timing of a response that no stage has made: that of `StageTimes()`, whose module imports
# torch, for which HTTP does not wait.
NO_STAGES = 'decode;dur=0.00, queue;dur=0.00, forward;dur=0.00, encode;dur=0.00, batch;desc="0"'

# The size in bytes of the JSON of an Open Inference body; tensors in binary follow the JSON.
BINARY_HEADER = "Inference-Header-Content-Length"
# Tensors of an Open Inference response; image_ids assigns detections to images. Clients may read
# them by position, so a new one is the last.
OUTPUT_NAMES = (
    "boxes",
    "scores",
    "classes",
    "masks",
    "keypoints",
    "panoptic",
    "semantic",
    "image_ids",
    "densepose",
    "mask_scores",
)


def media_type_of(content_type: str) -> str:
    """The media type without parameters, in lower case (WHATWG MIME Sniffing's "essence").

    Examples:
        >>> media_type_of("Image/JPEG; q=1")
        'image/jpeg'
    """
    return content_type.partition(";")[0].strip().lower()


def body_type_of(content_type: str) -> str:
    """The media type of a body, with aliases resolved.

    Examples:
        >>> body_type_of("application/x-ndjson; charset=utf-8")
        'application/jsonlines'
    """
    media_type = media_type_of(content_type)
    return TYPE_ALIASES.get(media_type, media_type)


def is_open_inference(path: str) -> bool:
    """Return whether a route belongs to the Open Inference Protocol, whose errors have a form of
    their own.

    Args:
        path: without the query string.

    Examples:
        >>> is_open_inference("/v2/models/shapes/infer"), is_open_inference("/v2beta")
        (True, False)
    """
    return path == "/v2" or path.startswith("/v2/")


@dataclass(frozen=True)
class Part:
    """A request's body, which may be a form, or one file of a form.

    `content_type` is the client's Content-Type; empty if the client sent none.
    """

    content_type: str
    body: bytes


@dataclass(frozen=True)
class HttpRequest:
    """An HTTP request.

    Attributes:
        headers: with lower-case names.
        parts: the parts of the body that may hold images.
        query: values of the query string, and of form fields that the server has parsed itself.
        request_id: the server's identifier of the request.
        arrived: arrival time in seconds of `time.monotonic`; None for the time of submission.
        deadline: time after which the client does not wait any more, in seconds of
            `time.monotonic`.
        is_disconnected: returns whether the client has closed its connection; called from any
            thread.
        is_open_inference: whether the route belongs to the Open Inference Protocol, whose errors
            have a form of their own.
    """

    headers: Mapping[str, str]
    parts: tuple[Part, ...]
    query: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    arrived: float | None = None
    deadline: float = math.inf
    is_disconnected: Callable[[], bool] = lambda: False
    is_open_inference: bool = False


@dataclass(frozen=True)
class Options:
    """The options of one request, validated for the model that serves it.

    Attributes:
        score_threshold: minimum score of a detection, from the network's own threshold to 1.
        max_detections: maximum number of detections per image; the best ones are kept.
        response_type: one of RESPONSE_TYPES; the Accept header wins over it.
        format: one of FORMATS, the layout of JSON responses.
        masks: one of MASKS.
        densepose: one of DENSEPOSE.
        classes: indices of the classes to keep; None keeps all.
        input_layout: one of INPUT_LAYOUTS, the axis order of arrays.
        input_color: one of INPUT_COLORS, the channel order of arrays.
        input_range: one of INPUT_RANGES, the range of values of arrays.
    """

    score_threshold: float
    max_detections: int
    response_type: str = "json"
    format: str = "default"
    masks: str = "rle"
    densepose: str = "png"
    classes: frozenset[int] | None = None
    input_layout: str = "auto"
    input_color: str = "rgb"
    input_range: str = "auto"


OPTION_NAMES = tuple(option.name for option in fields(Options))


class Style(Enum):
    """The request shapes that determine the layout of the response."""

    PLAIN = auto()
    """One image's object as it is; several under `predictions`."""
    BATCH = auto()
    """One array with a leading N, also of 1, which the formats for SageMaker Clarify keep."""
    INSTANCES = auto()
    """KServe v1: `instances` in, `predictions` out, also for a single image."""
    OPEN_INFERENCE = auto()
    """Open Inference Protocol v2: tensors in, tensors out."""


@dataclass(frozen=True)
class ResponseEnvelope:
    """The layout of a response around the images' results.

    Attributes:
        style: the shape of the request.
        id: the client's identifier of an Open Inference request, returned in the response; None
            if the client sent none.
        outputs: names of the requested Open Inference tensors; empty for all.
        binary_outputs: names of the Open Inference tensors that follow the JSON in binary.
    """

    style: Style = Style.PLAIN
    id: str | None = None
    outputs: tuple[str, ...] = ()
    binary_outputs: frozenset[str] = frozenset()
