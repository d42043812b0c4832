"""Parse multipart forms as they arrive."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from d2serve.errors import RequestError, bad_request
from d2serve.messages import Part

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS = 1000
MAX_PART_HEADERS = 16
# Of one header, and of the request's Content-Type: the time to parse parameters grows with the
# square of their length, and meanwhile no other connection is served.
MAX_HEADER_BYTES = 1024
HINT = "send the form as curl -F or a browser does"


@dataclass
class FormPart:
    """A part of a form while it arrives.

    Attributes:
        headers: with lower-case names.
        disposition: the parameters of Content-Disposition, such as the name of the field.
        body: what has arrived of the body.
    """

    headers: dict[str, str] = field(default_factory=dict)
    disposition: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)

    @property
    def is_file(self) -> bool:
        """True for a file; fields of forms have neither a file name nor a type."""
        return b"filename" in self.disposition or "content-type" in self.headers

    @property
    def is_unfilled(self) -> bool:
        """True for a file input of a web form for which no file was chosen."""
        return not self.body and not self.disposition.get(b"filename")


async def read_form(
    content_type: str, chunks: AsyncIterator[bytes]
) -> tuple[tuple[Part, ...], dict[str, str]]:
    """Read a form; return its files and the text of its other fields by name.

    Args:
        content_type: the request's Content-Type, with the boundary.
        chunks: the body.

    Raises:
        RequestError: 400 the body is not a complete form, it has too many parts, or a header is
            too long; also the errors of `chunks`.
    """
    form = _Form(content_type)
    async for chunk in chunks:
        form.feed(chunk)
    return form.result()


class _Form:
    """Collects the parts of one form."""

    def __init__(self, content_type: str) -> None:
        if len(content_type) > MAX_HEADER_BYTES:
            raise bad_request(
                f"the Content-Type of the form has {len(content_type)} bytes, accepted are at most "
                f"{MAX_HEADER_BYTES}",
                HINT,
            )
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise bad_request("the Content-Type of the form has no boundary", HINT)
        self._parts: list[FormPart] = []
        self._name, self._value = bytearray(), bytearray()
        self._is_complete = False
        callbacks = {
            "on_part_begin": self._begin_part,
            "on_part_data": self._add_data,
            "on_header_field": self._add_name,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(
                boundary,
                cast("MultipartCallbacks", callbacks),
                max_header_count=MAX_PART_HEADERS,
                max_header_size=MAX_HEADER_BYTES,
            )
        except FormParserError as error:
            raise _malformed() from error

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes of the body.

        Raises:
            RequestError: 400 the form is malformed.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _malformed() from error

    def result(self) -> tuple[tuple[Part, ...], dict[str, str]]:
        """The files and the fields.

        Raises:
            RequestError: 400 the form is incomplete.
        """
        if not self._is_complete:
            raise bad_request("the form ends before its last boundary", HINT)
        files, fields = [], {}
        for part in self._parts:
            if not part.is_file:
                name = part.disposition.get(b"name", b"").decode("utf-8", "replace")
                fields[name] = part.body.decode("utf-8", "replace")
            elif not part.is_unfilled:
                files.append(Part(part.headers.get("content-type", ""), bytes(part.body)))
        return tuple(files), fields

    def _begin_part(self) -> None:
        if len(self._parts) == MAX_PARTS:
            raise bad_request(
                f"the form has more than {MAX_PARTS} parts", "send fewer images in a request"
            )
        self._parts.append(FormPart())

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._parts[-1].body += data[start:end]

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        name = self._name.decode("latin-1").lower()
        self._parts[-1].headers[name] = self._value.decode("latin-1").strip()
        self._name.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        part = self._parts[-1]
        part.disposition = parse_options_header(part.headers.get("content-disposition"))[1]

    def _end(self) -> None:
        self._is_complete = True


def _malformed() -> RequestError:
    return bad_request("the multipart form cannot be parsed", HINT)
