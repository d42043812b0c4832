"""One line of JSON in the log for each request."""

import json
import logging
from collections import Counter
from dataclasses import fields
from datetime import datetime, timezone
from typing import Any

from d2serve.detections import Detections, Picture
from d2serve.errors import RequestError
from d2serve.inputs import instances as media_types
from d2serve.messages import HttpRequest, Options
from d2serve.serving.result_collector import DetectedRequest, FailedRequest
from d2serve.serving.telemetry import (
    OK,
    BatchReport,
    HttpResponse,
    PictureReport,
    Received,
    RequestReport,
)

logger = logging.getLogger(__name__)
# Of a request with hundreds of pictures the rest is added up alone.
SIZES_SHOWN = 16


def log_requests(batch: BatchReport, model_name: str) -> None:
    """Writes a line for each request of a batch.

    Nothing in it is a client's own text, and JSON in ASCII has no line ends.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    together = {"batch_requests": len(batch.requests), "batch_ms": round(batch.elapsed_ms, 2)}
    for request in batch.requests:
        heading = {"event": "request", "time": now, "model": model_name}
        logger.info(json.dumps(heading | request_entry(request) | together))


def request_entry(request: RequestReport) -> dict[str, Any]:
    """What the log says of a request, apart from its batch."""
    error = {"message": request.message} if request.message else {}
    return {
        "id": request.received.request_id,
        "status": request.status,
        "code": request.code,
        **error,
        "content_type": request.received.media_type,
        "bytes_in": request.received.size,
        "response_type": request.media_type,
        "bytes_out": request.size,
        **_pictures(request.pictures),
        "options": dict(request.options),
        "decode_ms": round(request.times.decode_ms, 2),
        "forward_ms": round(request.times.forward_ms, 2),
        "encode_ms": round(request.times.encode_ms, 2),
        "forward_images": request.times.batch,
    }


def _pictures(pictures: tuple[PictureReport, ...]) -> dict[str, Any]:
    failed = Counter(picture.code for picture in pictures if picture.code != OK)
    return {
        "images": len(pictures),
        "sizes": [f"{picture.width}x{picture.height}" for picture in pictures[:SIZES_SHOWN]],
        "pixels": sum(picture.width * picture.height for picture in pictures),
        "instances": sum(picture.instances for picture in pictures),
        **({"failed_images": dict(failed)} if failed else {}),
    }


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
        known, pictures = slot.decoded.received, _received_images(slot)
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


def _received_images(slot: DetectedRequest) -> tuple[PictureReport, ...]:
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
