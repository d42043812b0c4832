"""Options and images of a client's calls -> requests: what `Client` and `AsyncClient` share."""

import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from d2serve.client.transport import ImageInput, Payload
from d2serve.errors import CommandError, PredictionError

# Options of `Model.predict`, and the encodings of masks and surfaces.
OPTIONS = (
    "score_threshold",
    "max_detections",
    "classes",
    "input_layout",
    "input_color",
    "input_range",
    "masks",
    "densepose",
)
# Whatever the defaults of the archive are, the response is one that `Detections` can hold.
FIXED_OPTIONS = {"format": "default", "masks": "rle"}
SINGLE_IMAGE_TYPES = (np.ndarray, Image.Image, str, bytes, bytearray, memoryview)


def request_options(given: dict[str, Any]) -> dict[str, Any]:
    """Check the names of options, and convert their values to those of JSON.

    Raises:
        TypeError: an option is unknown.
    """
    unknown = given.keys() - set(OPTIONS)
    if unknown:
        raise TypeError(f"unknown option {sorted(unknown)[0]!r}; expected {', '.join(OPTIONS)}")
    values = {name: _plain(value) for name, value in given.items() if value is not None}
    return FIXED_OPTIONS | values


def each_image(images: ImageInput | Iterable[ImageInput]) -> Iterator[ImageInput]:
    """The images of an iterable, or the one image."""
    if isinstance(images, SINGLE_IMAGE_TYPES) or hasattr(images, "__fspath__"):
        yield images  # type: ignore[misc]
    else:
        yield from images


def payload_of(image: ImageInput, options: dict[str, Any]) -> Payload:
    """Build the request for an image.

    Raises:
        PredictionError: the file cannot be read.
        TypeError: the image is of no known kind.
    """
    try:
        return Payload.of(image, **options)
    except OSError as error:
        hint = "check the path and its permissions"
        raise PredictionError(0, "unreadable", f"the file cannot be read: {error}", hint) from error


def class_names_request() -> Payload:
    """A request whose response names all classes of the model, found in its image or not."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    options = {"format": "jumpstart", "masks": "none", "max_detections": 1}
    return Payload(file.getvalue(), "image/png", options=options)


def class_names_of(content: Any) -> tuple[str, ...]:
    """The class names of the response to `class_names_request`.

    Raises:
        PredictionError: it contains none.
    """
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, list):
        raise PredictionError(0, "no_prediction", "the response contains no class names")
    return tuple(labels)


def check_concurrency(concurrency: int) -> int:
    """Return the number of requests at a time.

    Raises:
        CommandError: it is below 1.
    """
    if concurrency < 1:
        raise CommandError(f"concurrency is {concurrency}; expected at least 1")
    return concurrency


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str) or not isinstance(value, Iterable):
        return value
    return [_plain(each) for each in value]
