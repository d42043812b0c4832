"""Slots of the pipeline -> what an operator may know of them."""

from dataclasses import fields
from typing import Any

from handler.detections import Detections
from handler.errors import RequestError
from handler.inputs import media_types
from handler.messages import HttpRequest, HttpResponse
from handler.options import Options
from handler.pictures import Picture
from handler.slots import DetectedRequest, FailedRequest
from handler.telemetry.reports import OK, PictureReport, Received, RequestReport


def received(request: HttpRequest) -> Received:
    """A request before it is read."""
    essence = media_types.essence(request.headers.get("content-type", ""))
    known = essence in (*media_types.NAMED, media_types.FORM)
    media_type = essence if known else "other" if essence else "none"
    return Received(request.request_id, media_type, sum(len(part.body) for part in request.parts))


def request_report(
    slot: DetectedRequest | FailedRequest,
    response: HttpResponse,
    error: RequestError | None,
    defaults: Options,
) -> RequestReport:
    """A request and its response; `error` is why it was refused, None where it was not."""
    if isinstance(slot, DetectedRequest):
        known, pictures = slot.decoded.received, _pictures(slot)
        options = _chosen(slot.decoded.choice.options, defaults)
    else:
        known, pictures, options = slot.received, (), {}
    return RequestReport(
        received=known,
        status=response.status,
        code=error.code if error else OK,
        message=error.message if error else "",
        media_type=response.content_type,
        size=len(response.body),
        pictures=pictures,
        options=options,
        times=slot.times,
    )


def _pictures(slot: DetectedRequest) -> tuple[PictureReport, ...]:
    pairs = zip(slot.decoded.pictures, slot.found, strict=True)
    return tuple(_picture(picture, found) for picture, found in pairs)


def _picture(picture: Picture | RequestError, found: Detections | RequestError) -> PictureReport:
    if isinstance(picture, RequestError):
        return PictureReport(code=picture.code)
    height, width = picture.shape[:2]
    if isinstance(found, RequestError):
        return PictureReport(width, height, found.code)
    return PictureReport(width, height, instances=len(found))


def _chosen(options: Options, defaults: Options) -> dict[str, Any]:
    """The options that are not as the archive has them, as JSON can hold them."""
    chosen = {}
    for option in fields(Options):
        value = getattr(options, option.name)
        if value != getattr(defaults, option.name):
            chosen[option.name] = sorted(value) if isinstance(value, frozenset) else value
    return chosen
