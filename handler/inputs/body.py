"""A request's body, by its Content-Type -> an envelope."""

from handler.errors import RequestError, bad_request, too_large, unsupported_media_type
from handler.inputs import media_types
from handler.inputs.envelope import Envelope
from handler.inputs.json_body import read_json, read_json_lines
from handler.messages import HttpRequest, Part
from handler.settings import Settings


def read_body(request: HttpRequest, settings: Settings) -> Envelope:
    """What the body, or the files of a form, hold.

    Raises:
        RequestError: nothing of the request can be used; of several files, a bad one becomes an
            error in its place.
    """
    _require_acceptable_size(request, settings)
    if len(request.parts) == 1:
        return _read_part(request.parts[0], settings)
    envelopes = [_try_part(part, settings) for part in request.parts]
    return Envelope(
        items=tuple(item for envelope in envelopes for item in envelope.items),
        parameters={
            name: envelope.parameters[name]
            for envelope in envelopes
            for name in envelope.parameters
        },
    )


def _require_acceptable_size(request: HttpRequest, settings: Settings) -> None:
    if media_types.essence(request.headers.get("content-type", "")) == media_types.FORM:
        raise unsupported_media_type(
            "a form without files was sent",
            "with curl, use -T file, or --data-binary @file with a Content-Type of its own",
        )
    size = sum(len(part.body) for part in request.parts)
    if size == 0:
        raise bad_request("the body is empty", "send an image or an array written by numpy.save")
    if size > settings.max_request_bytes:
        raise too_large(
            f"the body has {size} bytes; at most {settings.max_request_bytes} are accepted",
            "send less, or raise max_request_bytes in the archive's model-config.yaml",
        )


def _try_part(part: Part, settings: Settings) -> Envelope:
    try:
        return _read_part(part, settings)
    except RequestError as error:
        return Envelope((error,))


def _read_part(part: Part, settings: Settings) -> Envelope:
    media_type = media_types.essence(part.content_type)
    if not part.body:
        raise bad_request("a part of the body is empty", "send the file's bytes")
    if media_type == media_types.JSON:
        return read_json(part.body, settings)
    if media_type == media_types.JSON_LINES:
        return read_json_lines(part.body, settings)
    if media_type in (*media_types.IMAGES, media_types.NPY, *media_types.EITHER):
        return Envelope((part,))
    raise unsupported_media_type(
        "the Content-Type is not supported", f"send one of {', '.join(media_types.NAMED)}"
    )
