"""One line of JSON in the log for each request."""

import json
import logging
from collections import Counter
from datetime import datetime, timezone
from typing import Any

from handler.telemetry.reports import OK, BatchReport, PictureReport, RequestReport

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
