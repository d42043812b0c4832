"""Files that are not supported, recognized by their first bytes."""

import re

BASE64 = "base64 text"
FORM_FIELD = "text of an HTML form"
# Of a file, and its kind; the first match counts.
KINDS: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (kind, re.compile(start, re.DOTALL))
    for kind, start in (
        ("an AVIF image", rb".{4}ftyp(avi[fs]|(mif1|msf1|miaf).{0,48}avi[fs])"),
        ("a HEIC image", rb".{4}ftyp(hei[cxms]|hev[cx]|mif1|msf1)"),
        ("a Canon CR3 image", rb".{4}ftypcrx "),
        ("a video", rb".{4}ftyp....|\x1aE\xdf\xa3|RIFF....AVI |\0\0\x01[\xb3\xba]"),
        ("a JPEG XL image", rb"\xff\x0a|\0\0\0\x0cJXL "),
        ("a JPEG 2000 image", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
        ("an OpenEXR image", rb"v/1\x01"),
        ("a Radiance HDR image", rb"#\?(RADIANCE|RGBE)"),
        ("a Netpbm image", rb"P[1-7]\s"),
        ("an icon", rb"\0\0[\x01\x02]\0"),
        ("a Photoshop file", rb"8BPS"),
        ("a DICOM file", rb".{128}DICM"),
        ("a PDF file", rb"%PDF-"),
        ("an SVG image", rb"\s{0,99}<svg\s"),
        ("an HTML page", rb"\s{0,99}<(!(?i:doctype html)|(?i:html))"),
        ("an XML file", rb"\s{0,99}<\?xml"),
        ("a ZIP file, which may be an NPZ file", rb"PK\x03\x04"),
        ("a gzip file", rb"\x1f\x8b"),
        ("a PyTorch file", rb"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"),
        ("a pickle", rb"\x80[\x02-\x05][\x80-\xff(\]})cK.]"),
        (BASE64, rb"\s{0,99}(data:image/|/9j/|iVBORw0KGgo|R0lGOD|UklGR.{4}V|k05VTVBZ)"),
        (FORM_FIELD, rb"\w{1,40}=(data:image/|data%3Aimage|/9j/|%2F9j%2F|iVBORw0KGgo)"),
    )
)


def unsupported_kind(body: bytes) -> str:
    """The kind of a file that is not supported, in words; empty if it is not recognized.

    Examples:
        >>> unsupported_kind(b"%PDF-1.7")
        'a PDF file'
    """
    return next((kind for kind, start in KINDS if start.match(body)), "")
