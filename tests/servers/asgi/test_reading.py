"""Translation of requests: bodies, forms, query strings and limits."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from python_multipart.multipart import parse_options_header

from d2serve.errors import RequestError
from d2serve.servers.asgi import multipart
from d2serve.servers.asgi.app import create_app
from d2serve.servers.asgi.body import BodyLimits, read_chunks
from d2serve.servers.asgi.body_memory import BodyMemory
from d2serve.servers.asgi.multipart import read_form
from tests.servers.asgi.fakes import FakePipeline, send

FORM = "multipart/form-data; boundary=b"


def received(**options: Any) -> dict[str, Any]:
    """The request as the pipeline receives it."""
    response = send(create_app({"shapes": FakePipeline()}), "POST", "/invocations", **options)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


def test_a_raw_body_keeps_its_type() -> None:
    content = received(content=b"\xff\x00", headers={"Content-Type": "Image/JPEG; q=1"})
    assert content["parts"] == [["Image/JPEG; q=1", "\xff\x00"]]


def test_header_names_are_lower_case_and_repeated_ones_are_joined() -> None:
    headers = [("X-One", "1"), ("Accept", "image/png"), ("ACCEPT", "image/jpeg;q=0.5")]
    content = received(headers=headers)
    assert content["headers"]["x-one"] == "1"
    assert content["headers"]["accept"] == "image/png, image/jpeg;q=0.5"


def test_the_query_string_is_decoded() -> None:
    response = send(
        create_app({"shapes": FakePipeline()}),
        "POST",
        "/invocations?masks=none&classes=star%2Cring&classes=a%20b&empty=&broken=%zz",
    )
    assert response.json()["query"] == {
        "masks": "none",
        "classes": "a b",
        "empty": "",
        "broken": "%zz",
    }


def test_files_become_parts_and_fields_become_options() -> None:
    content = received(
        files=[
            ("data", ("a.jpg", b"one", "image/jpeg")),
            ("data", ("b.png", b"two", "image/png")),
            ("untyped", ("c", b"three")),
        ],
        data={"masks": "none", "content-type": "text/html", "authorization": "x"},
    )
    assert [body for _, body in content["parts"]] == ["one", "two", "three"]
    assert content["parts"][0] == ["image/jpeg", "one"]
    assert content["query"] == {"masks": "none", "content-type": "text/html", "authorization": "x"}
    assert content["headers"]["content-type"].startswith("multipart/form-data")
    assert "authorization" not in content["headers"]


def test_the_query_string_wins_over_form_fields() -> None:
    app = create_app({"shapes": FakePipeline()})
    files = {"data": ("a.jpg", b"one", "image/jpeg")}
    response = send(app, "POST", "/invocations?masks=rle", files=files, data={"masks": "none"})
    assert response.json()["query"] == {"masks": "rle"}


def test_unfilled_file_inputs_are_absent() -> None:
    unfilled = b'--b\r\nContent-Disposition: form-data; name="f"; filename=""\r\n'
    unfilled += b"Content-Type: application/octet-stream\r\n\r\n\r\n"
    filled = b'--b\r\nContent-Disposition: form-data; name="g"; filename="x"\r\n\r\nabc\r\n--b--'
    files, fields = form(unfilled + filled)
    assert [(part.content_type, part.body) for part in files] == [("", b"abc")]
    assert fields == {}


def test_an_empty_file_with_a_name_is_present() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x.jpg"\r\n\r\n\r\n--b--'
    files, _ = form(body + b"\r\n")
    assert [part.body for part in files] == [b""]


def test_a_form_of_many_parameters_is_rejected_at_once() -> None:
    part = b"--b\r\nContent-Disposition: form-data" + b";" * 8000 + b"\r\n\r\n\r\n"
    started = time.process_time()
    with pytest.raises(RequestError) as failure:
        form(part * 1000 + b"--b--\r\n")
    assert failure.value.code == "bad_request"
    assert time.process_time() - started < 0.5


def test_a_disposition_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[Any] = []

    def count(value: str | None) -> Any:
        parsed.append(value)
        return parse_options_header(value)

    monkeypatch.setattr(multipart, "parse_options_header", count)
    form(b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n\r\n--b--\r\n')
    assert parsed == [FORM, 'form-data; name="f"; filename="x"']


def test_the_form_field_model_name_is_no_option() -> None:
    content = received(files={"data": ("a.jpg", b"one")}, data={"model_name": "x", "masks": "rle"})
    assert content["query"] == {"masks": "rle"}


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_form_may_arrive_in_pieces(size: int) -> None:
    request = httpx.Request(
        "POST",
        "http://x",
        files={"data": ("a.jpg", b"one\r\n--two" * 20, "image/jpeg")},
        data={"masks": "none"},
    )
    body = request.read()
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    files, fields = form(*pieces, content_type=request.headers["content-type"])
    assert files[0].body == b"one\r\n--two" * 20
    assert fields == {"masks": "none"}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--b--\r\n"),
        ("multipart/form-data; boundary=", b"--b--\r\n"),
        (f"multipart/form-data; boundary={'b' * 500}", b"--b--\r\n"),
        (FORM, b""),
        (FORM, b"no form"),
        (FORM, b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\ncut off'),
        (FORM, b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\na\r\n--b'),
        (FORM, b"--b\r\nX: " + b"x" * 1100 + b"\r\n\r\na\r\n--b--\r\n"),
        (FORM + "; x=" + "x" * 1100, b"--b\r\nContent-Disposition: form-data\r\n\r\n\r\n--b--"),
        (FORM, b"--b\r\n" + b"X: y\r\n" * 20 + b"\r\na\r\n--b--\r\n"),
        (FORM, b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n\r\n' * 1001 + b"--b--"),
    ],
)
def test_a_malformed_form_is_400(content_type: str, body: bytes) -> None:
    with pytest.raises(RequestError) as failure:
        form(body, content_type=content_type)
    assert failure.value.code == "bad_request"


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

    return asyncio.run(collect())


def form(*pieces: bytes, content_type: str = FORM) -> Any:
    """Read a form that arrives in pieces."""

    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return asyncio.run(read_form(content_type, chunks()))
