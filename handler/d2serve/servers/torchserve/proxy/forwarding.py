"""Translation of clients' requests for TorchServe."""

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias
from urllib.parse import parse_qs, quote, unquote

import h11

from d2serve.errors import not_found
from d2serve.messages import (
    FORM_TYPE,
    MODEL_NAME,
    MULTIPART_TYPE,
    is_open_inference,
    media_type_of,
)
from d2serve.servers.torchserve.proxy.routes import PING, Destination, short_version
from d2serve.servers.torchserve.proxy.shared_files import ModelState
from d2serve.servers.torchserve.proxy.upstream import Field, end_to_end

ReadModels: TypeAlias = Callable[[], Mapping[str, ModelState]]
# Fields of clients with this prefix are dropped, except CLIENT_FIELDS.
OWN_FIELDS = b"x-d2serve-"
# A client's own deadline in milliseconds.
CLIENT_FIELDS = (b"x-d2serve-timeout-ms",)
# The arrival time in seconds of the machine's monotonic clock, which all processes share.
ARRIVED_HEADER = "x-d2serve-arrived"
# The number of the client's connection in the disconnect table.
CLIENT_HEADER = "x-d2serve-client"
# The query string as sent: TorchServe passes it to handlers on some routes only, and parses it.
QUERY_HEADER = "x-d2serve-query"
# The Content-Type of the client, where TorchServe would parse such a body itself.
TYPE_HEADER = "x-d2serve-content-type"
# Present on routes of the Open Inference Protocol, whose errors have a form of their own.
PROTOCOL_HEADER = "x-d2serve-protocol"
OPEN_INFERENCE = "open-inference"

# TorchServe's parsers damage binary values, drop all but one file of a name, and let files replace
# the headers of their names. `curl -d` declares FORM_TYPE for any body.
PARSED_TYPES = (FORM_TYPE, MULTIPART_TYPE)
BEARER = re.compile(rb"^bearer +", re.IGNORECASE)
# TorchServe accepts request lines of 4096 bytes, and reports longer ones as malformed.
MAX_TARGET_BYTES = 4000
REPLACED = (b"content-length", b"expect", b"host")


def forwarded(
    request: h11.Request, destination: Destination, models: ReadModels, own_fields: list[Field]
) -> h11.Request:
    """The request for TorchServe.

    Args:
        request: the client's request.
        destination: its route.
        models: returns the models that TorchServe serves, by name.
        own_fields: fields to add.

    Raises:
        RequestError: 404, the name of the model is too long for TorchServe.
    """
    fields = [
        _as_torchserve_reads(name, value)
        for name, value in end_to_end(request.headers)
        if name not in REPLACED and (name in CLIENT_FIELDS or not name.startswith(OWN_FIELDS))
    ]
    fields += [(b"host", destination.host), *own_fields]
    if not destination.route.is_inference:
        method = request.method if request.method == b"OPTIONS" else b"GET"
        target = destination.path if destination.route.template in ("/", PING) else PING
        return h11.Request(method=method, target=target, headers=fields)
    if destination.query:
        fields.append((QUERY_HEADER.encode(), destination.query.encode()))
    if is_open_inference(destination.path):
        fields.append((PROTOCOL_HEADER.encode(), OPEN_INFERENCE.encode()))
    target = _inference_path(destination, models)
    if len(target) > MAX_TARGET_BYTES:
        raise not_found()
    return h11.Request(
        method=request.method if request.method == b"OPTIONS" else b"POST",
        target=target,
        headers=[*fields, _framing(request)],
    )


def _inference_path(destination: Destination, models: ReadModels) -> str:
    """The path at TorchServe whose handler receives the body as it is."""
    if not destination.name:
        name = quote(parse_qs(destination.query).get(MODEL_NAME, [""])[-1], safe="")
        return f"{destination.path}?{MODEL_NAME}={name}" if name else destination.path
    path = f"/predictions/{destination.name}"
    if not destination.version:
        return path
    state = models().get(unquote(destination.name))
    known = {short_version(version): version for version in state.versions} if state else {}
    return f"{path}/{known.get(short_version(destination.version), destination.version)}"


def _as_torchserve_reads(name: bytes, value: bytes) -> Field:
    """A field as TorchServe accepts it.

    The type of a body that TorchServe would parse gets another name, and the scheme of a token the
    case that TorchServe requires.
    """
    if name == b"content-type" and media_type_of(value.decode("latin-1")) in PARSED_TYPES:
        return TYPE_HEADER.encode(), value
    return name, BEARER.sub(b"Bearer ", value) if name == b"authorization" else value


def _framing(request: h11.Request) -> Field:
    """The field with the length of the body."""
    for name, value in request.headers:
        if name in (b"content-length", b"transfer-encoding"):
            return name, value
    return b"content-length", b"0"
