"""As much of HTTP/1.1 (RFC 9112) as tells where the messages of a connection begin and end."""

from dataclasses import dataclass

HEAD_END = b"\r\n\r\n"
LONGEST_HEAD = 1 << 16


@dataclass(frozen=True)
class Head:
    """The start of a message: its first line, and its fields in order as they were sent."""

    first_line: str
    fields: tuple[tuple[str, str], ...]

    def values(self, name: str) -> list[str]:
        """All values of a field; `name` in lower case."""
        return [value for own, value in self.fields if own.lower() == name]

    def body_bytes(self) -> int | None:
        """How long the body is that follows, as far as Content-Length says so; else None."""
        lengths = self.values("content-length")
        if self.values("transfer-encoding") or len(lengths) != 1:
            return None
        return int(lengths[0]) if lengths[0].isascii() and lengths[0].isdecimal() else None

    @property
    def has_chunked_body(self) -> bool:
        """Whether the body that follows is chunked, and nothing besides."""
        encodings = [value.lower() for value in self.values("transfer-encoding")]
        return encodings == ["chunked"] and not self.values("content-length")

    def encoded(self) -> bytes:
        """The head on the wire, its empty line included."""
        lines = [self.first_line, *(f"{name}: {value}" for name, value in self.fields)]
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def parse_head(head: bytes) -> Head | None:
    """Reads a message's start without its empty line; None if it is none."""
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    if any(not separator or name != name.strip() or not name for name, separator, _ in pairs):
        return None
    return Head(first, tuple((name, value.strip(" \t")) for name, _, value in pairs))
