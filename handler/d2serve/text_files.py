"""Decode the text files that users write: UTF-8, or UTF-16 with a byte order mark."""

import codecs

UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode_text(content: bytes) -> str:
    """Decode the content of a text file, without its byte order mark.

    Raises:
        UnicodeError: it has another encoding; the message names the line, the byte and the fix.

    Examples:
        >>> decode_text(b"\\xef\\xbb\\xbfna\\xc3\\xafve")
        'naïve'
        >>> decode_text(b"[\\n\\xe9]")
        Traceback (most recent call last):
            ...
        UnicodeError: it is not UTF-8: line 2 has the byte 0xE9, as in Latin-1 or Windows-1252; \
save it as UTF-8, such as with: iconv -f LATIN1 -t UTF-8 OLD > NEW
    """
    if content.startswith(UTF16_MARKS):
        return _decode_utf16(content)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnicodeError(
            f"it is not UTF-8: line {line} has the byte 0x{content[error.start]:02X}, as in "
            "Latin-1 or Windows-1252; save it as UTF-8, such as with: "
            "iconv -f LATIN1 -t UTF-8 OLD > NEW"
        ) from error


def _decode_utf16(content: bytes) -> str:
    try:
        return content.decode("utf-16")
    except UnicodeDecodeError as error:
        raise UnicodeError(
            f"it has the byte order mark of UTF-16, but is damaged at byte {error.start}; save it "
            "as UTF-8"
        ) from error
