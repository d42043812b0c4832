"""The request log: one line of JSON for each request, and the reports that it is written from."""

import json
import logging
import time
from collections import Counter
from dataclasses import fields
from datetime import datetime, timezone
from typing import Any

from d2serve.errors import RequestError
from d2serve.messages import GENERIC_TYPES, REQUEST_TYPES, HttpRequest, Options, body_type_of
from d2serve.serving.log_context import request_context
from d2serve.serving.request_state import ImageState, RequestState
from d2serve.serving.requests import HttpResponse
from d2serve.serving.telemetry import OK, ImageReport, Received, RequestReport

logger = logging.getLogger(__name__)
# Requests may have hundreds of images; their number and pixels are logged in any case.
MAX_LOGGED_SIZES = 16


def log_request(report: RequestReport, model_name: str) -> None:
    """Write a request's line.

    The line contains no text of clients, and JSON in ASCII has no line breaks.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    heading = {"event": "request", "time": now, "model": model_name}
    with request_context():  # the line has the id as a field, and must be JSON only
        logger.info(json.dumps(heading | request_entry(report)))


def request_entry(request: RequestReport) -> dict[str, Any]:
    """The fields of a request's log line."""
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
        **{f"{name}_ms": round(value, 2) for name, value in request.times.stages().items()},
        "total_ms": round(request.elapsed_ms, 2),
        "forward_images": request.times.batch,
    }


def received(request: HttpRequest) -> Received:
    """The metadata of a request that has not been read yet."""
    media_type = body_type_of(request.headers.get("content-type", ""))
    known = media_type in (*REQUEST_TYPES, *GENERIC_TYPES)
    media_type = (media_type if known else "other") if media_type else "none"
    return Received(request.request_id, media_type, sum(len(part.body) for part in request.parts))


def request_report(
    state: RequestState, response: HttpResponse, error: RequestError | None, defaults: Options
) -> RequestReport:
    """Report a request and its response.

    Args:
        state: the request.
        response: its response.
        error: the error in the response; None without one.
        defaults: the archive's default options.
    """
    parsed = state.parsed
    return RequestReport(
        received=state.received,
        status=response.status,
        code=error.code if error else OK,
        message=error.message if error else "",
        media_type=response.content_type,
        size=len(response.body),
        images=tuple(map(_image_report, state.images)),
        options=_changed_options(parsed.choice.options, defaults) if parsed else {},
        times=state.times,
        elapsed_ms=(time.monotonic() - state.arrived) * 1000.0,
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


def _image_report(image: ImageState) -> ImageReport:
    height, width = image.size_hw
    if isinstance(image.result, RequestError):
        return ImageReport(width, height, image.result.code)
    return ImageReport(width, height, instances=0 if image.result is None else len(image.result))


def _changed_options(options: Options, defaults: Options) -> dict[str, Any]:
    """The options that differ from the archive's defaults, as JSON types."""
    changed = {}
    for option in fields(Options):
        value = getattr(options, option.name)
        if value != getattr(defaults, option.name):
            changed[option.name] = sorted(value) if isinstance(value, frozenset) else value
    return changed
