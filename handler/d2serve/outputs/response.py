"""Images and their detections -> the bytes of the response."""

from collections.abc import Sequence
from dataclasses import dataclass

from d2serve.detections import Detections, Picture
from d2serve.errors import RequestError
from d2serve.messages import Options, Style, Wrapping
from d2serve.metadata import ModelFacts
from d2serve.outputs.accept import JSON, JSON_LINES, NPY, NPZ
from d2serve.outputs.arrays import npy_body, npz_body
from d2serve.outputs.formats import FORMATS, Entry, Format, as_predictions
from d2serve.outputs.open_inference import open_inference_body
from d2serve.outputs.overlay import overlay_body
from d2serve.outputs.result import Result, json_bytes, require_bytes, selected


def plain_body(results: Sequence[Result | RequestError], chosen: Format) -> bytes:
    """One picture's entry as it is; those of several joined as the format wants it."""
    entries = _entries(results, chosen)
    return json_bytes(entries[0] if len(entries) == 1 else chosen.join(entries))


def batch_body(results: Sequence[Result | RequestError], chosen: Format) -> bytes:
    """As of several pictures where the format keeps batches, of a single one too."""
    if chosen.keeps_batches:
        return json_bytes(chosen.join(_entries(results, chosen)))
    return plain_body(results, chosen)


def instances_body(results: Sequence[Result | RequestError], chosen: Format) -> bytes:
    """KServe v1's {"predictions": [...]} with one entry per picture, a single one too."""
    return json_bytes(as_predictions(_entries(results, chosen)))


def lines_body(results: Sequence[Result | RequestError], chosen: Format) -> bytes:
    """One object a line and one line a picture; an entry that is a list as its `prediction`."""
    return b"".join(json_bytes(_as_object(entry)) + b"\n" for entry in _entries(results, chosen))


def _entries(results: Sequence[Result | RequestError], chosen: Format) -> list[Entry]:
    """Errors stay in their places."""
    return [
        result.body() if isinstance(result, RequestError) else chosen.entry(result)
        for result in results
    ]


def _as_object(entry: Entry) -> Entry:
    return {"prediction": entry} if isinstance(entry, list) else entry


@dataclass(frozen=True)
class Answer:
    """One request's pictures, what was found in each, and how the client wants to have it.

    Attributes:
        pictures: in the order sent; an error in the place of one that could not be used.
        found: as many; an error where the picture has one, or its forward failed.
        options: which detections, in which format.
        media_type: one of the supported ones; one with room for one picture only where there is
            one.
        wrapping: how JSON wraps the pictures.
    """

    pictures: tuple[Picture | RequestError, ...]
    found: tuple[Detections | RequestError, ...]
    options: Options
    media_type: str
    wrapping: Wrapping


def render(answer: Answer, model: ModelFacts, max_bytes: int) -> bytes:
    """The body of the response.

    Raises:
        RequestError: the only picture's own error; 413 for a body of more than `max_bytes`; 406
            for a picture that the media type cannot hold.
    """
    results = [_result(answer, position, model) for position in range(len(answer.found))]
    match results:
        case [RequestError() as error]:
            raise error
        case [Result() as result] if answer.media_type not in (JSON, JSON_LINES):
            body = _one_picture_body(result, answer.media_type, max_bytes)
        case _:
            body = _json_body(results, answer, model.name)
    require_bytes(len(body), max_bytes)
    return body


def _result(answer: Answer, position: int, model: ModelFacts) -> Result | RequestError:
    picture, found = answer.pictures[position], answer.found[position]
    if isinstance(picture, RequestError):
        return picture
    if isinstance(found, RequestError):
        return found
    detections = selected(found, answer.options)
    return Result(position, picture, detections, answer.options.masks, model)


def _one_picture_body(result: Result, media_type: str, max_bytes: int) -> bytes:
    if media_type == NPY:
        return npy_body(result.detections)
    if media_type == NPZ:
        return npz_body(result, max_bytes)
    return overlay_body(result.picture, result.detections, result.model, media_type)


def _json_body(results: Sequence[Result | RequestError], answer: Answer, model_name: str) -> bytes:
    chosen = FORMATS[answer.options.format]
    if answer.media_type == JSON_LINES:
        return lines_body(results, chosen)
    if answer.wrapping.style is Style.OPEN_INFERENCE:
        return open_inference_body(results, answer.wrapping, model_name)
    if answer.wrapping.style is Style.INSTANCES:
        return instances_body(results, chosen)
    if answer.wrapping.style is Style.BATCH:
        return batch_body(results, chosen)
    return plain_body(results, chosen)
