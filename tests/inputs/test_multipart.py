"""Multipart forms: parts, fields, limits, and malformed ones."""

from contextlib import suppress
from functools import partial

import httpx
import hypothesis.strategies as st
import pytest
from hypothesis import given

from d2serve.errors import RequestError
from d2serve.inputs.body import read_body
from d2serve.inputs.multipart import Form, read_form
from d2serve.messages import HttpRequest, Part
from d2serve.settings import Settings
from tests.work import calls_of

FORM = "multipart/form-data; boundary=b"
# Of forms, also of malformed ones.
PIECES = (
    *(b"--b", b"--", b"\r\n", b"\r", b"\n", b" ", b"\0", b"b", b"a" * 100, b"\r\n--b\r\n"),
    *(b"Content-Disposition: form-data", b'; name="f"', b'; filename="x"', b";", b'"', b": "),
    *(b"Content-Type: image/png", b"\r\n\r\n", b"--b\r\n\r\n", b"\r\n--b--", b"\xff\xfe"),
)
PNG = b"\x89PNG\r\n\x1a\n\0\xff"


def part(body: bytes, disposition: str = 'name="f"', *headers: str) -> bytes:
    """A part with its boundary, without the end of its last line."""
    lines = ("--b", f"Content-Disposition: form-data; {disposition}", *headers, "", "")
    return "\r\n".join(lines).encode() + body + b"\r\n"


def form(*parts: bytes) -> Form:
    return read_form(FORM, b"".join(parts) + b"--b--\r\n")


def files_of(content: Form) -> list[tuple[str, bytes]]:
    return [(file.content_type, file.body) for file in content.files]


def test_files_and_fields_of_a_client() -> None:
    request = httpx.Request(
        "POST",
        "http://x",
        files=[
            ("data", ("a.jpg", b"one\r\n--two" * 20, "image/jpeg")),
            ("data", ("b.png", b"two", "image/png")),
            ("untyped", ("c", b"three")),
        ],
        data={"masks": "none", "content-type": "text/html", "model_name": "x"},
    )
    content = read_form(request.headers["content-type"], request.read())
    assert files_of(content) == [
        ("image/jpeg", b"one\r\n--two" * 20),
        ("image/png", b"two"),
        ("application/octet-stream", b"three"),
    ]
    assert content.fields == {"masks": "none", "content-type": "text/html"}


@pytest.mark.parametrize(
    ("disposition", "content_type", "body", "is_file"),
    [
        pytest.param('name="f"; filename="x"', "", b"text", True, id="a-file-name"),
        pytest.param("name=f; filename=x", "", b"text", True, id="bare-values"),
        pytest.param('name="f"; FileName="x;y"', "", b"text", True, id="semicolon-and-case"),
        pytest.param('name="masks"; filename="x"', "", b"none", True, id="file-of-an-options-name"),
        pytest.param('name="f"', "image/png", b"text", True, id="an-image-type"),
        pytest.param('name="f"', "application/json", b"{}", True, id="json"),
        pytest.param('name="f"', "text/plain", b"text", True, id="text"),
        pytest.param('name="f"', "", PNG, True, id="binary"),
        pytest.param('name="f"', "", b"text", False, id="a-field"),
        pytest.param('name="filename"', "", b"text", False, id="a-field-named-filename"),
        pytest.param('name="a; filename=b"', "", b"text", False, id="file-name-in-a-name"),
        pytest.param('name="masks"', "text/plain", b"none", False, id="an-option-with-a-type"),
        pytest.param('name="masks"', "Text/Plain; a=b", b"none", False, id="with-parameters"),
        pytest.param('name="masks"', "", b"\xff", False, id="an-option-that-is-not-text"),
    ],
)
def test_what_is_a_file(disposition: str, content_type: str, body: bytes, is_file: bool) -> None:
    headers = [f"Content-Type: {content_type}"] if content_type else []
    content = form(part(body, disposition, *headers))
    assert bool(content.files) == is_file
    assert bool(content.fields) != is_file


def test_unfilled_file_inputs_are_absent() -> None:
    unfilled = part(b"", 'name="f"; filename=""', "Content-Type: application/octet-stream")
    filled = part(b"abc", 'name="g"; filename="x"')
    assert files_of(form(unfilled, filled)) == [("", b"abc")]


def test_an_empty_file_with_a_name_is_present() -> None:
    assert files_of(form(part(b"", 'name="f"; filename="x.jpg"'))) == [("", b"")]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        pytest.param('multipart/form-data; boundary="b"', b"--b", id="quoted"),
        pytest.param("multipart/form-data; charset=utf-8; Boundary=b", b"--b", id="case"),
        pytest.param(FORM, b"\r\n--b", id="empty-line"),
        pytest.param(FORM, b"A message in MIME format.\r\n--b", id="text"),
        pytest.param(FORM, b"\r\n\r\n--b", id="two-empty-lines"),
        pytest.param(FORM, b"a--b\r\n--b", id="no-boundary-within-a-line"),
        pytest.param('multipart/form-data; boundary="b:c d"', b"--b:c d", id="signs"),
    ],
)
def test_boundaries(content_type: str, body: bytes) -> None:
    end = b"\r\n--b:c d--" if b":" in body else b"\r\n--b--"
    head = b'\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n'
    content = read_form(content_type, body + head + PNG + end + b"\r\nepilogue")
    assert files_of(content) == [("", PNG)]


@pytest.mark.parametrize("body", [b"\r\n", b"\r\n--", b"-", b"\r\n--c\r\n", b"\n--b--\n", PNG * 9])
def test_content_that_resembles_a_boundary(body: bytes) -> None:
    assert files_of(form(part(body, 'name="f"; filename="x"'))) == [("", body)]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--b--\r\n"),
        ("multipart/form-data; boundary=", b"--b--\r\n"),
        ("multipart/form-data; x-boundary=b", b"--b--\r\n"),
        (f"multipart/form-data; boundary={'b' * 500}", b"--b--\r\n"),
        (FORM, b""),
        (FORM, b"no form"),
        (FORM, b"--b"),
        (FORM, b"--bc\r\n\r\n\r\n--b--"),
        (FORM, part(b"cut off")),
        (FORM, part(b"cut off") + b"--b"),
        (FORM, b"--b\r\nContent-Disposition: form-data\r\n"),
        (FORM, b"--b\nContent-Disposition: form-data\n\n\n--b--"),
        (FORM, b"--b\r\nX: " + b"x" * 5000 + b"\r\n\r\na\r\n--b--\r\n"),
        (FORM + "; x=" + "x" * 5000, part(b"") + b"--b--"),
        (FORM, part(b"") * 1001 + b"--b--"),
    ],
)
def test_a_malformed_form_is_a_400(content_type: str, body: bytes) -> None:
    with pytest.raises(RequestError) as failure:
        read_form(content_type, body)
    assert failure.value.code == "bad_request"
    assert "form" in failure.value.message


def read_or_reject(body: bytes) -> None:
    with suppress(RequestError):
        read_form(FORM, body)


def test_the_work_is_bounded() -> None:
    def work(size: int) -> int:
        forms = [
            part(b"", "form-data" + ";" * 900) * size + b"--b--\r\n",
            part(b"", 'name="' + "\\\\" * 450) * size + b"--b--\r\n",
            part(b"\r\n--" * 1_000 * size) + b"--b--\r\n",
            b"\r\n--" * 1_000 * size,
            b"--b" + b" " * 3_000 * size,
        ]
        return sum(calls_of(partial(read_or_reject, form)) for form in forms)

    assert work(40) < 4.5 * work(10)


def test_fields_are_parameters_and_files_are_items() -> None:
    body = part(PNG) + part(b"none", 'name="masks"') + part(b"b", 'name="g"; filename="x"')
    parsed = read_body(
        HttpRequest({"content-type": FORM}, (Part(FORM, body + b"--b--\r\n"),)), Settings()
    )
    assert parsed.items == (Part("", PNG), Part("", b"b"))
    assert parsed.parameters == {"masks": "none"}


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        pytest.param([part(b"none", 'name="masks"')], 400, id="only-options"),
        pytest.param([part(b"", 'name="f"; filename=""')], 400, id="only-unfilled-inputs"),
        pytest.param([part(b"", 'name="f"; filename="x"')], 400, id="an-empty-file"),
        pytest.param([part(PNG, 'name="f"', "Content-Encoding: gzip")], 415, id="compressed"),
        pytest.param(
            [part(PNG, 'name="f"', "Content-Type: multipart/mixed; boundary=c")], 415, id="nested"
        ),
    ],
)
def test_a_form_without_a_usable_file(parts: list[bytes], status: int) -> None:
    body = b"".join(parts) + b"--b--\r\n"
    with pytest.raises(RequestError) as failure:
        read_body(HttpRequest({"content-type": FORM}, (Part(FORM, body),)), Settings())
    assert failure.value.status == status


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_any_content_is_read_as_it_was_sent(bodies: list[bytes]) -> None:
    files = [("data", (f"{index}.bin", body)) for index, body in enumerate(bodies)]
    request = httpx.Request("POST", "http://x", files=files)
    content = read_form(request.headers["content-type"], request.read())
    assert [file.body for file in content.files] == bodies


@given(st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join))
def test_any_body_is_a_form_or_a_400(body: bytes) -> None:
    try:
        content = read_form(FORM, body)
    except RequestError as error:
        assert error.status == 400  # noqa: PT017 (other bodies raise nothing)
    else:
        assert b"--b--" in body
        assert all(b"\r\n--b" not in file.body for file in content.files)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(b"", PNG, id="first-is-empty"),
        pytest.param(PNG, b"", id="last-is-empty"),
    ],
)
def test_an_empty_file_keeps_its_place(first: bytes, second: bytes) -> None:
    files = [("a", ("a.png", first)), ("b", ("b.png", second)), ("c", ("c.png", PNG))]
    request = httpx.Request("POST", "http://x", files=files)
    content_type = request.headers["content-type"]
    parsed = read_body(
        HttpRequest({"content-type": content_type}, (Part(content_type, request.read()),)),
        Settings(),
    )
    errors = [item.status if isinstance(item, RequestError) else 0 for item in parsed.items]
    assert errors == [0 if body else 400 for body in (first, second, PNG)]


@pytest.mark.parametrize(
    "media_type", ["image/heic", "image/avif", "image/x-bmp", "image/vnd.mozilla.apng", "Image/MPO"]
)
def test_bytes_decide_whatever_image_type_a_file_declares(media_type: str) -> None:
    body = part(PNG, 'name="f"; filename="x"', f"Content-Type: {media_type}; a=b") + b"--b--\r\n"
    parsed = read_body(HttpRequest({"content-type": FORM}, (Part(FORM, body),)), Settings())
    assert [item.body for item in parsed.items if isinstance(item, Part)] == [PNG]


def test_repeated_classes_are_a_list() -> None:
    names = ("classes", "masks", "classes", "masks")
    values = (b"cat", b"rle", b"dog", b"none")
    parts = [part(value, f'name="{name}"') for name, value in zip(names, values, strict=True)]
    form = read_form(FORM, b"".join(parts) + part(PNG) + b"--b--\r\n")
    assert form.fields == {"classes": "cat,dog", "masks": "none"}
