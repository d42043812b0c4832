"""The request log: one line of JSON for each request, and the reports that it is written from."""

import json
import logging
from collections import Counter
from dataclasses import fields
from datetime import datetime, timezone
from typing import Any

from d2serve.detections import Detections, RGBImage
from d2serve.errors import RequestError
from d2serve.messages import FORM_TYPE, REQUEST_TYPES, HttpRequest, Options, media_type_of
from d2serve.serving.requests import DetectedRequest, FinishedRequest, HttpResponse
from d2serve.serving.telemetry import OK, BatchReport, ImageReport, Received, RequestReport

logger = logging.getLogger(__name__)
# Requests may have hundreds of images; their number and pixels are logged in any case.
MAX_LOGGED_SIZES = 16


def log_requests(batch: BatchReport, model_name: str) -> None:
    """Write a line for each request of a batch.

    The lines contain no text of clients, and JSON in ASCII has no line breaks.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    together = {"batch_requests": len(batch.requests), "batch_ms": round(batch.elapsed_ms, 2)}
    for request in batch.requests:
        heading = {"event": "request", "time": now, "model": model_name}
        logger.info(json.dumps(heading | request_entry(request) | together))


def request_entry(request: RequestReport) -> dict[str, Any]:
    """The fields of a request's log line, without those of its batch."""
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
        **_image_fields(request.images),
        "options": dict(request.options),
        "decode_ms": round(request.times.decode_ms, 2),
        "forward_ms": round(request.times.forward_ms, 2),
        "encode_ms": round(request.times.encode_ms, 2),
        "forward_images": request.times.batch,
    }


def received(request: HttpRequest) -> Received:
    """The metadata of a request that has not been read yet."""
    media_type = media_type_of(request.headers.get("content-type", ""))
    known = media_type in (*REQUEST_TYPES, FORM_TYPE)
    media_type = media_type if known else "other" if media_type else "none"
    return Received(request.request_id, media_type, sum(len(part.body) for part in request.parts))


def request_report(
    request: FinishedRequest,
    response: HttpResponse,
    error: RequestError | None,
    defaults: Options,
) -> RequestReport:
    """Report a request and its response.

    Args:
        request: the request.
        response: its response.
        error: the error in the response; None without one.
        defaults: the archive's default options.
    """
    if isinstance(request, DetectedRequest):
        metadata, images = request.decoded.received, _image_reports(request)
        options = _changed_options(request.decoded.choice.options, defaults)
    else:
        metadata, images, options = request.received, (), {}
    return RequestReport(
        received=metadata,
        status=response.status,
        code=error.code if error else OK,
        message=error.message if error else "",
        media_type=response.content_type,
        size=len(response.body),
        images=images,
        options=options,
        times=request.times,
    )


def _image_fields(images: tuple[ImageReport, ...]) -> dict[str, Any]:
    failed = Counter(image.code for image in images if image.code != OK)
    return {
        "images": len(images),
        "sizes": [f"{image.width}x{image.height}" for image in images[:MAX_LOGGED_SIZES]],
        "pixels": sum(image.width * image.height for image in images),
        "instances": sum(image.instances for image in images),
        **({"failed_images": dict(failed)} if failed else {}),
    }


def _image_reports(request: DetectedRequest) -> tuple[ImageReport, ...]:
    pairs = zip(request.decoded.images, request.detections, strict=True)
    return tuple(_image_report(image, detections) for image, detections in pairs)


def _image_report(
    image: RGBImage | RequestError, detections: Detections | RequestError
) -> ImageReport:
    if isinstance(image, RequestError):
        return ImageReport(code=image.code)
    height, width = image.shape[:2]
    if isinstance(detections, RequestError):
        return ImageReport(width, height, detections.code)
    return ImageReport(width, height, instances=len(detections))


def _changed_options(options: Options, defaults: Options) -> dict[str, Any]:
    """The options that differ from the archive's defaults, as JSON types."""
    changed = {}
    for option in fields(Options):
        value = getattr(options, option.name)
        if value != getattr(defaults, option.name):
            changed[option.name] = sorted(value) if isinstance(value, frozenset) else value
    return changed
