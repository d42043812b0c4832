"""Multipart forms (RFC 7578) -> the parts that may hold images, and the fields."""

import logging
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from d2serve.errors import RequestError, bad_request
from d2serve.inputs.options import merged
from d2serve.messages import (
    GENERIC_TYPES,
    IMAGE_TYPES,
    MODEL_NAME,
    OPTION_NAMES,
    Part,
    body_type_of,
    media_type_of,
)

MAX_PARTS = 1000
MAX_PART_HEADERS = 16
# Of one header, and of the request's Content-Type: the time to parse parameters grows with the
# square of their length.
MAX_HEADER_BYTES = 1024
MAX_BOUNDARY_LENGTH = 200
HINT = "send the form as curl -F or a browser does"
TEXT_TYPES = ("", "text/plain")
# The parser's warnings repeat the errors of this module.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


@dataclass(frozen=True)
class FormPart:
    """A part of a form.

    Attributes:
        name: the name of its field.
        file_name: empty for a file input of a web form for which no file was chosen; None for parts
            that declare no file name.
        content_type: empty if the part declares none.
        encoding: its Content-Encoding; empty as a rule.
        body: the content.
    """

    name: str
    file_name: str | None
    content_type: str
    encoding: str
    body: bytes

    @property
    def is_file(self) -> bool:
        """True for content, False for an option.

        Some clients declare no file name, and others declare `text/plain` for options.
        """
        if self.file_name is not None:
            return True
        media_type = media_type_of(self.content_type)
        if media_type not in TEXT_TYPES:
            return True
        return self.name not in OPTION_NAMES and (bool(media_type) or not _is_text(self.body))

    def as_body(self) -> Part:
        """The part as a body of its own; its bytes decide, not the type of images it declares."""
        media_type = body_type_of(self.content_type)
        is_other_image = media_type.startswith("image/") and media_type not in IMAGE_TYPES
        return Part(GENERIC_TYPES[0] if is_other_image else self.content_type, self.body)

    @property
    def is_unfilled(self) -> bool:
        """True for a file input of a web form for which no file was chosen."""
        return not self.body and not self.file_name


@dataclass(frozen=True)
class Form:
    """The content of a form.

    Attributes:
        files: the parts that may hold images, in order.
        fields: the text of the other parts by name; see `merged`.
    """

    files: tuple[FormPart, ...]
    fields: dict[str, str]


def read_form(content_type: str, body: bytes) -> Form:
    r"""Parse a complete form.

    Raises:
        RequestError: 400 the body is not a complete form, it has too many parts, or a header is
            too long.

    Examples:
        >>> text = b'--x\r\nContent-Disposition: form-data; name="masks"\r\n\r\nnone\r\n--x--\r\n'
        >>> read_form("multipart/form-data; boundary=x", text).fields
        {'masks': 'none'}
    """
    files: list[FormPart] = []
    pairs: list[tuple[str, str]] = []
    for part in _parse(_boundary(content_type), body):
        if not part.is_file:
            pairs.append((part.name, part.body.decode("utf-8", "replace")))
        elif not part.is_unfilled:
            files.append(part)
    fields = merged(pairs)
    fields.pop(MODEL_NAME, None)
    return Form(tuple(files), fields)


def _boundary(content_type: str) -> bytes:
    if len(content_type) > MAX_HEADER_BYTES:
        raise bad_request(
            f"the Content-Type of the form has {len(content_type)} bytes, accepted are at most "
            f"{MAX_HEADER_BYTES}",
            HINT,
        )
    boundary = _parameters(content_type).get("boundary", "")
    if not boundary:
        raise bad_request("the Content-Type of the form has no boundary", HINT)
    if len(boundary) > MAX_BOUNDARY_LENGTH:
        raise bad_request(
            f"the boundary of the form has {len(boundary)} characters, accepted are at most "
            f"{MAX_BOUNDARY_LENGTH}",
            HINT,
        )
    return boundary.encode("latin-1", "replace")


@dataclass
class _Collector:
    """Receives the pieces of a form from the parser.

    Attributes:
        parts: the complete parts.
        is_complete: True after the last boundary.
    """

    parts: list[FormPart] = field(default_factory=list)
    is_complete: bool = False
    _headers: dict[str, str] = field(default_factory=dict)
    _name: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _pieces: list[bytes] = field(default_factory=list)

    def on_part_begin(self) -> None:
        if len(self.parts) == MAX_PARTS:
            raise bad_request(
                f"the form has more than {MAX_PARTS} parts", "send fewer images in a request"
            )
        self._headers, self._pieces = {}, []

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        name = self._name.decode("latin-1").lower()
        self._headers[name] = self._value.decode("utf-8", "replace").strip()
        self._name.clear()
        self._value.clear()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def on_part_end(self) -> None:
        disposition = _parameters(self._headers.get("content-disposition", ""))
        self.parts.append(
            FormPart(
                name=disposition.get("name", ""),
                file_name=disposition.get("filename"),
                content_type=self._headers.get("content-type", ""),
                encoding=self._headers.get("content-encoding", ""),
                body=b"".join(self._pieces),
            )
        )

    def on_end(self) -> None:
        self.is_complete = True


def _parse(boundary: bytes, body: bytes) -> list[FormPart]:
    form = _Collector()
    callbacks = {name: getattr(form, name) for name in dir(form) if name.startswith("on_")}
    try:
        parser = MultipartParser(
            boundary,
            callbacks,  # type: ignore[arg-type]
            max_header_count=MAX_PART_HEADERS,
            max_header_size=MAX_HEADER_BYTES,
        )
        parser.write(_without_preamble(boundary, body))
    except FormParserError as error:
        raise _malformed("its boundaries or headers are invalid") from error
    if not form.is_complete:
        raise _malformed("it ends before its last boundary")
    return form.parts


def _without_preamble(boundary: bytes, body: bytes) -> bytes:
    """The form without lines before its first boundary, which the parser rejects."""
    first = b"--" + boundary
    if body.startswith(first):
        return body
    line_end = body.find(b"\r\n" + first)
    return body if line_end < 0 else body[line_end + len(b"\r\n") :]


def _parameters(header: str) -> dict[str, str]:
    """The parameters of a header, such as the name of the field in Content-Disposition."""
    # A replaced character cannot be in a name that counts.
    _, parameters = parse_options_header(header.encode("latin-1", "replace"))
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in parameters.items()}


def _is_text(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _malformed(problem: str) -> RequestError:
    return bad_request(f"the multipart form cannot be parsed: {problem}", HINT)
