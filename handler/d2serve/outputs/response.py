"""Images and their detections -> the bytes of the response."""

from collections.abc import Sequence
from dataclasses import dataclass

from d2serve.detections import Detections, RGBImage
from d2serve.errors import RequestError
from d2serve.messages import Options, ResponseEnvelope, Style
from d2serve.metadata import ModelMetadata
from d2serve.outputs.accept import JSON, JSON_LINES, NPY, NPZ
from d2serve.outputs.arrays import npy_body, npz_body
from d2serve.outputs.formats import FORMATS, Entry, Format, as_predictions
from d2serve.outputs.open_inference import open_inference_body
from d2serve.outputs.overlay import overlay_body
from d2serve.outputs.result import Result, check_size, filter_detections, json_bytes


@dataclass(frozen=True)
class ResponseContent:
    """The images of one request, their detections, and the requested format.

    Attributes:
        images: in the order sent; an error in place of an invalid one.
        detections: for each image, or an error if the image or its forward pass failed.
        options: filter the detections and choose the format.
        media_type: a supported one; one that holds a single image only if there is a single image.
        envelope: the layout of JSON around the images.
    """

    images: tuple[RGBImage | RequestError, ...]
    detections: tuple[Detections | RequestError, ...]
    options: Options
    media_type: str
    envelope: ResponseEnvelope


def render(content: ResponseContent, model: ModelMetadata, max_bytes: int) -> bytes:
    """Encode the body of the response.

    Raises:
        RequestError: the only image's own error; 413 for a body of more than `max_bytes`; 406
            for an image that the media type cannot hold.
    """
    results = [_result(content, position, model) for position in range(len(content.detections))]
    match results:
        case [RequestError() as error]:
            raise error
        case [Result() as result] if content.media_type not in (JSON, JSON_LINES):
            body = _one_image_body(result, content.media_type, max_bytes)
        case _:
            body = _json_body(results, content, model.name)
    check_size(len(body), max_bytes)
    return body


def plain_body(results: Sequence[Result | RequestError], chosen: Format) -> bytes:
    """The entry of a single image as it is; several entries joined by the format."""
    entries = _entries(results, chosen)
    return json_bytes(entries[0] if len(entries) == 1 else chosen.join(entries))


def batch_body(results: Sequence[Result | RequestError], chosen: Format) -> bytes:
    """Joined entries, also of a single image, if the format keeps batches."""
    if chosen.keeps_batches:
        return json_bytes(chosen.join(_entries(results, chosen)))
    return plain_body(results, chosen)


def instances_body(results: Sequence[Result | RequestError], chosen: Format) -> bytes:
    """KServe v1's {"predictions": [...]} with one entry per image, also for a single one."""
    return json_bytes(as_predictions(_entries(results, chosen)))


def lines_body(results: Sequence[Result | RequestError], chosen: Format) -> bytes:
    """One object per line and one line per image; an entry that is a list as its `prediction`."""
    entries = _entries(results, chosen)
    objects = ({"prediction": entry} if isinstance(entry, list) else entry for entry in entries)
    return b"".join(json_bytes(line) + b"\n" for line in objects)


def _entries(results: Sequence[Result | RequestError], chosen: Format) -> list[Entry]:
    return [
        result.body() if isinstance(result, RequestError) else chosen.entry(result)
        for result in results
    ]


def _result(content: ResponseContent, position: int, model: ModelMetadata) -> Result | RequestError:
    image, found = content.images[position], content.detections[position]
    if isinstance(image, RequestError):
        return image
    if isinstance(found, RequestError):
        return found
    detections = filter_detections(found, content.options)
    return Result(position, image, detections, content.options.masks, model)


def _one_image_body(result: Result, media_type: str, max_bytes: int) -> bytes:
    if media_type == NPY:
        return npy_body(result.detections)
    if media_type == NPZ:
        return npz_body(result, max_bytes)
    return overlay_body(result.image, result.detections, result.model, media_type)


def _json_body(
    results: Sequence[Result | RequestError], content: ResponseContent, model_name: str
) -> bytes:
    chosen = FORMATS[content.options.format]
    if content.media_type == JSON_LINES:
        return lines_body(results, chosen)
    match content.envelope.style:
        case Style.OPEN_INFERENCE:
            return open_inference_body(results, content.envelope, model_name)
        case Style.INSTANCES:
            return instances_body(results, chosen)
        case Style.BATCH:
            return batch_body(results, chosen)
        case Style.PLAIN:
            return plain_body(results, chosen)
