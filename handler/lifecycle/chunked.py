"""Where a chunked body ends (RFC 9112, section 7.1)."""

import re

SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
LONGEST_LINE = 4096
LINE_END = b"\n"
# After each chunk.
END_BYTES = 2


class ChunkedBody:
    """One body, read as it comes.

    Attributes:
        ended: whether all of it has come.
        broken: whether it is none.
    """

    def __init__(self) -> None:
        self.ended = False
        self.broken = False
        self._line = bytearray()
        self._chunk_left = 0
        self._in_trailer = False

    def feed(self, data: bytes) -> int:
        """How many of the bytes that have come next are its own."""
        taken = 0
        while taken < len(data) and not (self.ended or self.broken):
            if self._chunk_left:
                step = min(self._chunk_left, len(data) - taken)
                self._chunk_left -= step
                taken += step
                continue
            line, end, _ = data[taken : taken + LONGEST_LINE].partition(LINE_END)
            taken += len(line) + len(end)
            self._line += line
            self.broken = len(self._line) > LONGEST_LINE
            if end:
                self._end_of_line(bytes(self._line).removesuffix(b"\r"))
                self._line.clear()
        return taken

    def _end_of_line(self, line: bytes) -> None:
        if self._in_trailer:
            self.ended = not line
            return
        size = line.partition(b";")[0].strip(b" \t")
        self.broken = self.broken or not SIZE.fullmatch(size)
        if self.broken:
            return
        length = int(size, 16)
        self._in_trailer = not length
        self._chunk_left = length + END_BYTES if length else 0
