"""Images and their detections -> the bytes of the response."""

from collections.abc import Sequence
from dataclasses import dataclass

from d2serve.detections import Detections, RGBImage
from d2serve.errors import RequestError
from d2serve.messages import Options, ResponseEnvelope, Style
from d2serve.metadata import ModelMetadata
from d2serve.outputs.accept import JPEG, JSON, JSON_LINES, NPY, NPZ, PNG, Choice
from d2serve.outputs.arrays import npy_body, npz_body
from d2serve.outputs.formats import FORMATS, JUMPSTART, Entry, Format, as_predictions
from d2serve.outputs.open_inference import open_inference_response
from d2serve.outputs.overlay import overlay_body
from d2serve.outputs.rendered import Rendered
from d2serve.outputs.result import Result, check_size, filter_detections, json_bytes


@dataclass(frozen=True)
class ResponseContent:
    """The images of one request, their detections, and the requested format.

    Attributes:
        images: UInt8[H, W, 3] RGB each, in the order sent; None where the response does not
            need it, see `needs_pixels`.
        detections: for each image, or an error if the image or its forward pass failed.
        options: filter the detections and choose the format.
        media_type: a supported one; one that holds a single image only if there is a single image.
        envelope: the layout of JSON around the images.
    """

    images: tuple[RGBImage | None, ...]
    detections: tuple[Detections | RequestError, ...]
    options: Options
    media_type: str
    envelope: ResponseEnvelope


def needs_pixels(choice: Choice) -> bool:
    """Return whether responses of this type and format contain the images themselves."""
    return choice.media_type in (JPEG, PNG) or choice.options.format == JUMPSTART


def render(content: ResponseContent, model: ModelMetadata, max_bytes: int) -> Rendered:
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
            rendered = Rendered(body, content.media_type)
        case _:
            rendered = _json_response(results, content, model.name)
    check_size(len(rendered.body), max_bytes)
    return rendered


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
    """The entry of each image; the body of its error if it has one or the format cannot hold it.

    Raises:
        RequestError: the format cannot hold the only image.
    """
    if len(results) == 1 and isinstance(results[0], Result):
        return [chosen.entry(results[0])]
    return [_entry_or_error(result, chosen) for result in results]


def _entry_or_error(result: Result | RequestError, chosen: Format) -> Entry:
    if isinstance(result, RequestError):
        return result.body()
    try:
        return chosen.entry(result)
    except RequestError as error:
        return error.body()


def _result(content: ResponseContent, position: int, model: ModelMetadata) -> Result | RequestError:
    found = content.detections[position]
    if isinstance(found, RequestError):
        return found
    detections = filter_detections(found, content.options)
    return Result(position, content.images[position], detections, content.options.masks, model)


def _one_image_body(result: Result, media_type: str, max_bytes: int) -> bytes:
    if media_type == NPY:
        return npy_body(result.detections)
    if media_type == NPZ:
        return npz_body(result, max_bytes)
    return overlay_body(result.required_pixels, result.detections, result.model, media_type)


def _json_response(
    results: Sequence[Result | RequestError], content: ResponseContent, model_name: str
) -> Rendered:
    chosen = FORMATS[content.options.format]
    if content.media_type == JSON_LINES:
        return Rendered(lines_body(results, chosen), JSON_LINES)
    match content.envelope.style:
        case Style.OPEN_INFERENCE:
            return open_inference_response(results, content.envelope, model_name)
        case Style.INSTANCES:
            body = instances_body(results, chosen)
        case Style.BATCH:
            body = batch_body(results, chosen)
        case Style.PLAIN:
            body = plain_body(results, chosen)
    return Rendered(body, JSON)
