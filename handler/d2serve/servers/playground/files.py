"""The files of the page, and their headers."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ASSETS = Path(__file__).with_name("assets")
PAGE = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# The page loads nothing from elsewhere and runs no inline code; images of the user are blobs.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
# Browsers ask each time whether the file has changed.
CACHE_CONTROL = "no-cache"


@dataclass(frozen=True)
class PageFile:
    """A file of the page.

    Attributes:
        body: its content.
        packed: its content, compressed by gzip.
        media_type: its Content-Type.
        etag: identifies the content.
    """

    body: bytes
    packed: bytes
    media_type: str
    etag: str

    def response(self, headers: Mapping[str, str]) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of the response to a GET request.

        Args:
            headers: the request's headers, with lower-case names.
        """
        sent = {
            **SECURITY_HEADERS,
            "cache-control": CACHE_CONTROL,
            "etag": self.etag,
            "vary": "Accept-Encoding",
        }
        if self.etag in headers.get("if-none-match", ""):
            return 304, b"", sent
        sent["content-type"] = self.media_type
        if "gzip" in headers.get("accept-encoding", ""):
            return 200, self.packed, {**sent, "content-encoding": "gzip"}
        return 200, self.body, sent


@cache
def page_files() -> Mapping[str, PageFile]:
    """The files by name; empty if this installation has no page.

    Examples:
        >>> page_files()["index.html"].media_type
        'text/html; charset=utf-8'
    """
    if not ASSETS.is_dir():
        return {}
    return {path.name: _read(path) for path in sorted(ASSETS.iterdir()) if path.suffix in TYPES}


def _read(path: Path) -> PageFile:
    body = path.read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    return PageFile(body, gzip.compress(body, mtime=0), TYPES[path.suffix], etag)
