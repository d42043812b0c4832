"""GIF files: the first frame without comments and application blocks."""

from collections.abc import Iterator

from d2serve.inputs.formats.image_parts import (
    MAX_PARTS,
    MAX_SUB_BLOCKS,
    ImageParts,
    too_many_parts,
    without,
)

SIGNATURE = b"GIF8"
HEADER_BYTES = 13
EXTENSION, IMAGE, END = b"!", b",", b";"
GRAPHIC_CONTROL = 0xF9
IMAGE_BYTES = 10


class SubBlocks:
    """Walks over sub-blocks, at most MAX_SUB_BLOCKS in a file."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._remaining = MAX_SUB_BLOCKS

    def end(self, position: int) -> int:
        """The position after the sub-blocks that start at `position`; beyond a truncated file.

        Raises:
            RequestError: 400, the file has too many sub-blocks.
        """
        body, size = self._body, len(self._body)
        while position < size and (length := body[position]):
            position += length + 1
            self._remaining -= 1
            if self._remaining < 0:
                raise too_many_parts("GIF sub-blocks", MAX_SUB_BLOCKS)
        return position + 1


def gif_parts(body: bytes) -> ImageParts:
    """Keep the first frame and its transparency.

    Raises:
        RequestError: 400, more than MAX_PARTS blocks or MAX_SUB_BLOCKS sub-blocks.
    """
    removed: list[tuple[int, int]] = []
    frames, end_of_first = 0, len(body)
    for count, (kind, start, end) in enumerate(_blocks(body), start=1):
        if count > MAX_PARTS:
            raise too_many_parts("GIF blocks", MAX_PARTS)
        if kind == IMAGE:
            frames += 1
            if frames == 1:
                end_of_first = min(end, len(body))
        elif not frames and body[start + 1 : start + 2] != bytes([GRAPHIC_CONTROL]):
            removed.append((start, min(end, len(body))))
    if not frames:
        return ImageParts(without(body, removed))
    return ImageParts(without(body[:end_of_first], removed) + END, frames=frames)


def _blocks(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of extensions and images; other bytes between them are skipped."""
    sub_blocks = SubBlocks(body)
    position = HEADER_BYTES + _table_bytes(body[10:11])
    while position < len(body):
        kind, start = body[position : position + 1], position
        if kind == END:
            return
        if kind == EXTENSION:
            position = sub_blocks.end(position + 2)
        elif kind == IMAGE:
            table = _table_bytes(body[position + 9 : position + 10])
            # One byte, the initial size of codes, precedes the pixels.
            position = sub_blocks.end(position + IMAGE_BYTES + table + 1)
        else:
            position += 1
        yield kind, start, position


def _table_bytes(flags: bytes) -> int:
    """The size of a color table, by the flags of a screen or of an image."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0
