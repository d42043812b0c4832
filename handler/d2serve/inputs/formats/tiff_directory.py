"""The first directory of a TIFF file: its entries, read and rewritten."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

BIG, HEADER_BYTES = 43, 8
SHORT, LONG = 3, 4
# Format character of each type with integer values; other types are read as bytes.
INTEGERS = {1: "B", SHORT: "H", LONG: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q"}
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8,
         17: 8, 18: 8}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Positions in a TIFF file, which depend on its byte order and version.

    Attributes:
        order: `<` or `>`.
        is_big: whether the file is a BigTIFF, with offsets of 64 bits.
    """

    order: str
    is_big: bool

    @property
    def count_format(self) -> str:
        """Of the number of entries."""
        return self.order + ("Q" if self.is_big else "H")

    @property
    def offset_format(self) -> str:
        """Of offsets, and of the number of values."""
        return self.order + ("Q" if self.is_big else "I")

    @property
    def entry_bytes(self) -> int:
        """Of tag, type, number of values, and values or their offset."""
        return 20 if self.is_big else 12

    def unpack(self, layout: str, body: bytes, position: int) -> int:
        """An integer.

        Raises:
            struct.error: the file ends before it.
        """
        (value,) = struct.unpack_from(layout, body, position)
        return int(value)


class Directory:
    """The entries of one directory, by tag.

    Args:
        body: the file.
        layout: see `layout_of`.
        start: position of the directory.

    Raises:
        struct.error: the directory is truncated.

    Attributes:
        following: position of the next directory; 0 without one.
    """

    def __init__(self, body: bytes, layout: Layout, start: int) -> None:
        self._body, self._layout, self._start = body, layout, start
        count = layout.unpack(layout.count_format, body, start)
        first = start + struct.calcsize(layout.count_format)
        self._end = first + count * layout.entry_bytes
        self.following = layout.unpack(layout.offset_format, body, self._end)
        positions = range(first, self._end, layout.entry_bytes)
        tags = (layout.unpack(f"{layout.order}H", body, position) for position in positions)
        self.entries = {
            tag: body[position : position + layout.entry_bytes]
            for tag, position in zip(tags, positions, strict=True)
        }

    def integers(self, tag: int) -> tuple[int, ...]:
        """The values of a tag; empty without it, with another type, or with values out of file."""
        kind, count, content = self._content(tag)
        if kind not in INTEGERS or not content:
            return ()
        return struct.unpack(f"{self._layout.order}{count}{INTEGERS[kind]}", content)

    def integer(self, tag: int, default: int = 0) -> int:
        """The first value of a tag."""
        return next(iter(self.integers(tag)), default)

    def content(self, tag: int) -> bytes:
        """The values of a tag as bytes."""
        return self._content(tag)[2]

    def is_complete(self) -> bool:
        """Return whether the values of all tags are in the file."""
        return all(self.content(tag) or not self._content(tag)[1] for tag in self.entries)

    def replace(self, tag: int, value: int) -> None:
        """Set a tag to one integer of 16 or 32 bits."""
        kind, code = (SHORT, "H") if value < 1 << 16 else (LONG, "I")
        order, offset = self._layout.order, self._layout.offset_format
        head = struct.pack(f"{order}HH", tag, kind) + struct.pack(offset, 1)
        value_bytes = struct.pack(order + code, value)
        self.entries[tag] = (head + value_bytes).ljust(self._layout.entry_bytes, b"\0")

    def keep(self, tags: Sequence[int]) -> None:
        """Remove all other tags."""
        self.entries = {tag: entry for tag, entry in self.entries.items() if tag in tags}

    def in_file(self, appended: bytes = b"") -> bytes:
        """The file with this as its only directory, and with bytes appended at its former end."""
        layout, body, start = self._layout, self._body, self._start
        entries = [self.entries[tag] for tag in sorted(self.entries)]
        content = struct.pack(layout.count_format, len(entries)) + b"".join(entries)
        content += struct.pack(layout.offset_format, 0)
        view = memoryview(body)
        if start + len(content) <= self._end + struct.calcsize(layout.offset_format):
            return b"".join((view[:start], content, view[start + len(content) :], appended))
        position = 8 if layout.is_big else 4
        padding = bytes((len(body) + len(appended)) % 2)
        start = len(body) + len(appended) + len(padding)
        pointer = struct.pack(layout.offset_format, start)
        rest = view[position + len(pointer) :]
        return b"".join((view[:position], pointer, rest, appended, padding, content))

    def _content(self, tag: int) -> tuple[int, int, bytes]:
        """Type, number and bytes of the values; no bytes if any is out of the file."""
        entry, layout = self.entries.get(tag), self._layout
        if entry is None:
            return 0, 0, b""
        kind = layout.unpack(f"{layout.order}H", entry, 2)
        count = layout.unpack(layout.offset_format, entry, 4)
        inline = entry[4 + struct.calcsize(layout.offset_format) :]
        size = count * SIZES.get(kind, 1)
        if size <= len(inline):
            return kind, count, inline[:size]
        offset = layout.unpack(layout.offset_format, inline, 0)
        content = self._body[offset : offset + size]
        return kind, count, content if len(content) == size else b""


def layout_of(body: bytes) -> Layout:
    """The layout of a file that starts with II or MM."""
    # Some writers swap the two bytes of the version.
    return Layout("<" if body.startswith(b"II") else ">", BIG in body[2:4])


def first_directory(body: bytes, layout: Layout) -> int:
    """Position of the first directory.

    Raises:
        struct.error: the header is truncated.
    """
    return layout.unpack(layout.offset_format, body, 8 if layout.is_big else 4)


def following_directories(body: bytes, layout: Layout, first: Directory) -> Iterator[int]:
    """Positions of the directories after the first, up to a damaged or repeated one."""
    seen, position = {first_directory(body, layout)}, first.following
    while position and position not in seen:
        seen.add(position)
        try:
            count = layout.unpack(layout.count_format, body, position)
            end = position + struct.calcsize(layout.count_format) + count * layout.entry_bytes
            following = layout.unpack(layout.offset_format, body, end)
        except (struct.error, OverflowError):
            return
        yield position
        position = following
