"""Pictures and what was found in them -> the bytes of the answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from handler.detections import Detections
from handler.errors import RequestError
from handler.model_facts import ModelFacts
from handler.options import Options
from handler.outputs.accept import JSON, JSON_LINES, NPY, NPZ
from handler.outputs.arrays import npy_body, npz_body
from handler.outputs.formats.result import Result
from handler.outputs.formats.table import FORMATS
from handler.outputs.json_body import batch_body, instances_body, lines_body, plain_body
from handler.outputs.limits import require_bytes
from handler.outputs.open_inference import open_inference_body
from handler.outputs.overlay import overlay_body
from handler.outputs.selection import selected
from handler.pictures import Picture
from handler.wrapping import Style, Wrapping


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
