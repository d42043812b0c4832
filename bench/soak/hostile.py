"""The hostile requests: all that the tests' table of bad ones has, and clients that misbehave."""

import random
from collections.abc import Iterator
from pathlib import Path

from bench.load.requests import (
    CLOSED,
    CRAWLING,
    KEPT,
    LEAVING_EARLY,
    LEAVING_LATE,
    RAW,
    Request,
)
from bench.soak.expected import Expected, Refused, Unread
from bench.soak.kinds import Kind
from scripts.pictures import content_type_of
from tests.bad_requests import REFUSED

# Beyond TorchServe's own limit, `max_request_size` in config.properties.
TOO_LARGE_BYTES = 105_000_000
RANDOM_BYTES = 4096
MULTIPART = "multipart/form-data; boundary=xyz"
PART_HEAD = (
    b'--xyz\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n'
    b"Content-Type: image/png\r\n\r\n"
)
BAD_REQUEST, UNREAD = Refused(400, "bad_request"), Unread(400)
# Content type, body and answer.
BODIES = {
    "random bytes": (
        "image/jpeg",
        random.Random(0).randbytes(RANDOM_BYTES),  # noqa: S311
        Refused(415, "unsupported_media_type"),
    ),
    "multipart without its end": (MULTIPART, PART_HEAD + b"\x89PNG", BAD_REQUEST),
    "multipart without fields": (MULTIPART, b"--xyz\r\n\r\nabc\r\n--xyz--\r\n", BAD_REQUEST),
}
# What is all that comes on a connection.
SCRAWLS: dict[str, tuple[bytes, Expected]] = {
    "no HTTP": (b"hello there\r\n\r\n", UNREAD),
    "random bytes on the socket": (
        random.Random(1).randbytes(RANDOM_BYTES) + b"\r\n\r\n",  # noqa: S311
        UNREAD,
    ),
    "a length that is none": (
        b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: abc\r\n\r\nabc",
        BAD_REQUEST,
    ),
}
LEAVING = {
    "a byte a second, then nothing": CRAWLING,
    "gone in the middle of the request": LEAVING_EARLY,
    "gone in the middle of the answer": LEAVING_LATE,
}


def hostile_kinds(picture: Path, folder: Path) -> list[Kind]:
    """All of them; their bodies are written into the folder, `picture` is what leavers send."""
    return list(_all(picture, folder))


def _all(picture: Path, folder: Path) -> Iterator[Kind]:
    for name, bad in REFUSED.items():
        fields = {"Content-Type": bad.content_type, **bad.headers}
        yield _kind(name, _file(folder, name, bad.body), fields, Refused(bad.status, bad.code))
    for name, (content_type, body, refused) in BODIES.items():
        yield _kind(name, _file(folder, name, body), {"Content-Type": content_type}, refused)
    for name, (sent, answered) in SCRAWLS.items():
        yield _kind(name, _file(folder, name, sent), {}, answered, RAW)
    large = folder / "too-large"
    with large.open("wb") as file:
        file.truncate(TOO_LARGE_BYTES)
    yield _kind("a body too large", large, {}, Refused(413, "too_large"), CLOSED)
    for name, manner in LEAVING.items():
        fields = {"Content-Type": content_type_of(picture), "Accept": "image/png"}
        yield _kind(name, picture, fields, None, manner)


def _kind(
    name: str, file: Path, fields: dict[str, str], expected: Expected | None, manner: str = KEPT
) -> Kind:
    request = Request(f"hostile: {name}", str(file.resolve()), fields, manner)
    return Kind(request, expected, hostile=True)


def _file(folder: Path, name: str, body: bytes) -> Path:
    file = folder / name.replace(" ", "-")
    file.write_bytes(body)
    return file
