"""Translation of requests: bodies, query strings and limits."""

import asyncio
from typing import Any

import pytest

from d2serve.errors import RequestError
from d2serve.servers.asgi.app import create_app
from d2serve.servers.asgi.body import BodyLimits, read_chunks
from d2serve.servers.body_memory import BodyMemory
from tests import virtual_time
from tests.servers.asgi.fakes import FakePipeline, send


def received(**options: Any) -> dict[str, Any]:
    """The request as the pipeline receives it."""
    response = send(create_app({"shapes": FakePipeline()}), "POST", "/invocations", **options)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


def test_a_raw_body_keeps_its_type() -> None:
    content = received(content=b"\xff\x00", headers={"Content-Type": "Image/JPEG; q=1"})
    assert content["parts"] == [["Image/JPEG; q=1", "\xff\x00"]]


def test_a_form_is_a_body() -> None:
    content = received(files={"accept": ("a.jpg", b"one")}, data={"masks": "none"})
    [[content_type, body]] = content["parts"]
    assert content_type == content["headers"]["content-type"]
    assert content_type.startswith("multipart/form-data; boundary=")
    assert "one" in body
    assert content["query"] == {}
    assert content["headers"]["accept"] == "*/*"


def test_header_names_are_lower_case_and_repeated_ones_are_joined() -> None:
    headers = [("X-One", "1"), ("Accept", "image/png"), ("ACCEPT", "image/jpeg;q=0.5")]
    content = received(headers=headers)
    assert content["headers"]["x-one"] == "1"
    assert content["headers"]["accept"] == "image/png, image/jpeg;q=0.5"


def test_the_query_string_is_decoded() -> None:
    response = send(
        create_app({"shapes": FakePipeline()}),
        "POST",
        "/invocations?masks=rle&masks=none&classes=star%2Cring&classes=a%20b&empty=&broken=%zz",
    )
    assert response.json()["query"] == {
        "masks": "none",
        "classes": "star,ring,a b",
        "empty": "",
        "broken": "%zz",
    }


@pytest.mark.parametrize(
    ("chunks", "code"),
    [
        ([b"x" * 11], "too_large"),
        ([b"x" * 5, b"x" * 6], "too_large"),
        ([b"x", None], "client_closed_request"),
        ([b"xxxx", 1.0], "request_timeout"),
        ([b"x", 0.2, b"x", 0.2, b"x", 0.2], "request_timeout"),
    ],
)
def test_limits_of_bodies(chunks: list[bytes | float | None], code: str) -> None:
    with pytest.raises(RequestError) as failure:
        read(chunks, BodyLimits(max_bytes=10, timeout_s=0.3, min_bytes=4))
    assert failure.value.code == code


def test_a_slow_body_with_progress_is_read() -> None:
    chunks: list[bytes | float | None] = [b"xxxx", 0.2, b"xxxx", 0.2, b"xx"]
    assert read(chunks, BodyLimits(max_bytes=10, timeout_s=0.3, min_bytes=4)) == b"x" * 10


def read(chunks: list[bytes | float | None], limits: BodyLimits) -> bytes:
    """Read a body that arrives as chunks and pauses in seconds; None is a disconnect."""
    left = list(chunks)

    async def receive() -> dict[str, Any]:
        while left:
            match left.pop(0):
                case bytes(body):
                    return {"type": "http.request", "body": body, "more_body": bool(left)}
                case float(pause):
                    await asyncio.sleep(pause)
                case None:
                    return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def collect() -> bytes:
        with BodyMemory().hold(limits.max_bytes) as held:
            return b"".join([chunk async for chunk in read_chunks(receive, limits, held)])

    body, _ = virtual_time.run(collect())
    return body
