"""Base64 in JSON -> bytes."""

import base64
import re

from handler.errors import bad_request

DATA_URI = re.compile(r"data:[\w.+/;=-]{0,200};base64,", re.ASCII | re.IGNORECASE)
URL_SAFE = str.maketrans("-_", "+/")
WHITESPACE = str.maketrans("", "", " \t\r\n")


def decode_base64(text: str) -> bytes:
    """Decodes base64, standard or URL-safe, with or without padding, white space or a `data:` URI.

    Raises:
        RequestError: 400 where the text is something else, or nothing.
    """
    prefix = DATA_URI.match(text)
    digits = text[prefix.end() :] if prefix else text
    digits = digits.translate(WHITESPACE).translate(URL_SAFE).rstrip("=")
    try:
        body = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError as error:
        raise bad_request(
            "a text is not base64", "send the base64 of an image's bytes or of an NPY file"
        ) from error
    if not body:
        raise bad_request("a text is empty", "send the base64 of an image's bytes or an NPY file")
    return body
