"""Requests of a soak with their expected responses. Good ones are every image x the ways to send it
x the response formats; hostile ones are the tests' table of bad requests, broken HTTP, and clients
that disconnect."""

import io
import json
import random
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bench.loadgen import client as messages
from bench.loadgen.client import KEPT, MARK, Group, Request
from bench.soak import expected as expect
from bench.soak.expected import Expected, Read, refused
from bench.workloads import encode_image
from d2serve.client.images import content_type_of
from d2serve.errors import CommandError
from tests.bad_requests import REJECTED
from tests.goldens.cases import RESULTS

Headers = Mapping[str, str]
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
JSON, PNG, NPY = "application/json", "image/png", "application/x-npy"
FORMATS: Mapping[str, tuple[Headers, Read]] = {
    "json": ({"Accept": JSON}, expect.read_default),
    "clarify": ({"Accept": JSON, ATTRIBUTES: "format=clarify"}, expect.read_rows),
    "npy": ({"Accept": NPY}, expect.read_rows),
}
DRAWN = {"Accept": PNG}
ENCODINGS = {PNG: "PNG", NPY: "NPY"}
# Beyond `max_request_size` in config.properties.
TOO_LARGE_BYTES = 105_000_000
NOISE = [random.Random(seed).randbytes(4096) for seed in (0, 1)]  # noqa: S311
MULTIPART = "multipart/form-data; boundary=xyz"
PART = b'--xyz\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\n\x89PNG'
BAD_REQUEST = refused(400, "bad_request")
BODIES = {
    "random bytes": ("image/jpeg", NOISE[0], refused(415, "unsupported_media_type")),
    "multipart without its end": (MULTIPART, PART, BAD_REQUEST),
    "multipart without fields": (MULTIPART, b"--xyz\r\n\r\nabc\r\n--xyz--\r\n", BAD_REQUEST),
}
NO_LENGTH = b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: abc\r\n\r\nabc"
BROKEN_HTTP = {
    "not HTTP": (b"hello there\r\n\r\n", refused(400, None)),
    "random bytes on the socket": (NOISE[1] + b"\r\n\r\n", refused(400, None)),
    "a length that is not a number": (NO_LENGTH, BAD_REQUEST),
}
DISCONNECTS = (messages.SLOW, messages.RESET_EARLY, messages.RESET_LATE)

# Sends a request to a server that does nothing else, and returns the body.
Ask = Callable[[Request], bytes]


class Kind(NamedTuple):
    """A request, its expected response (None where the client disconnects), and its group."""

    request: Request
    expected: Expected | None
    hostile: bool

    @property
    def name(self) -> str:
        """Name of the request."""
        return self.request.name


def groups_of(kinds: Sequence[Kind], hostile_share: float) -> list[Group]:
    """Groups for the generator; `hostile_share` is 0..1 of the requests."""
    shares = {False: 1.0 - hostile_share, True: hostile_share}
    return [
        Group(share, [kind.request for kind in kinds if kind.hostile == hostile])
        for hostile, share in shares.items()
        if share
    ]


def good_kinds(images: Sequence[Path], model_name: str, ask: Ask) -> list[Kind]:
    """All good requests; expected are goldens where the model has them, else idle responses.

    Raises CommandError where a response of the idle server is wrong, or two images have the same
    one, so that a response to another client would not show."""
    kinds = [kind for image in images for kind in _kinds_of(image, model_name, ask)]
    bodies = {kind.name: ask(kind.request) for kind in kinds}
    for kind in kinds:
        assert kind.expected
        if fault := kind.expected.fault(bodies[kind.name]):
            raise CommandError(f"{kind.name}: wrong response before the soak: {fault}")
        image, _, form = kind.name.partition(" as ")
        others = {each for each in bodies if each.endswith(f" as {form}")} - {kind.name}
        for other in others:
            if not kind.expected.fault(bodies[other]):
                names = f"{Path(image).name} and {Path(other.partition(' as ')[0]).name}"
                raise CommandError(
                    f"--images: {names} have the same response, so that a mix-up would not show; "
                    "use other images"
                )
    return kinds


def _kinds_of(image: Path, model_name: str, ask: Ask) -> Iterator[Kind]:
    pixels, own_type, body = _upright(image), content_type_of(image), image.read_bytes()
    size_wh = pixels.size

    def request(form: str, sent: bytes, kind: str, headers: Headers, how: str = KEPT) -> Request:
        fields = {**headers, "Content-Type": kind}
        return Request(f"{image} as {kind} -> {form}", sent, fields, how)

    (accept, read), golden = FORMATS["json"], RESULTS / f"{model_name}-{image.stem}.json"
    if golden.exists():
        found, tolerance = expect.read_golden(golden), expect.TO_GOLDEN
    else:
        plain = ask(request("json", body, own_type, accept))
        found, tolerance = read(plain, size_wh), expect.TO_RESPONSE
    overlay = expect.drawn(ask(request("drawn", body, own_type, DRAWN)))
    ways = {kind: encode_image(np.asarray(pixels), name) for kind, name in ENCODINGS.items()}
    for content_type, sent in {**ways, own_type: body}.items():
        for name, (headers, reader) in FORMATS.items():
            expected = expect.detected(reader, size_wh, found, tolerance)
            yield Kind(request(name, sent, content_type, headers), expected, False)
        yield Kind(request("drawn", sent, content_type, DRAWN), overlay, False)
    data = [b64encode(body).decode()]
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": data}
    document = json.dumps({"id": MARK.decode(), "inputs": [tensor]}).encode()
    expected = expect.marked(expect.detected(expect.read_tensors, size_wh, found, tolerance))
    yield Kind(request("tensors", document, JSON, {"Accept": JSON}), expected, False)
    alone = request("json, alone", body, own_type, accept, messages.CLOSED)
    yield Kind(alone, expect.detected(read, size_wh, found, tolerance), False)


def _upright(image: Path) -> Image.Image:
    """The image in RGB, with its EXIF orientation applied."""
    try:
        with Image.open(io.BytesIO(image.read_bytes())) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except UnidentifiedImageError:
        raise CommandError(f"--images: Pillow cannot read {image}; use other images") from None


def hostile_kinds(image: Path) -> Iterator[Kind]:
    """All hostile requests; clients that disconnect send `image`."""
    sent = image.read_bytes()
    rows: list[tuple[str, bytes, Headers, Expected | None, str]] = []
    for name, bad in REJECTED.items():
        headers = {"Content-Type": bad.content_type, **bad.headers}
        rows.append((name, bad.body, headers, refused(bad.status, bad.code), KEPT))
    for name, (content_type, body, expected) in BODIES.items():
        rows.append((name, body, {"Content-Type": content_type}, expected, KEPT))
    for name, (message, expected) in BROKEN_HTTP.items():
        rows.append((name, message, {}, expected, messages.RAW))
    too_large = refused(413, "too_large")
    rows.append(("too large", bytes(TOO_LARGE_BYTES), {}, too_large, messages.CLOSED))
    headers = {"Content-Type": content_type_of(image), **DRAWN}
    rows += [(behaviour, sent, headers, None, behaviour) for behaviour in DISCONNECTS]
    for name, body, fields, response, behaviour in rows:
        yield Kind(Request(f"hostile: {name}", body, fields, behaviour), response, True)
