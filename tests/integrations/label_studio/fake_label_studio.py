"""Label Studio's routes for files, which require a token."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

LEGACY_TOKEN = "0123456789abcdef"
PERSONAL_TOKEN = "head.refresh.signature"
BUCKET_URI = "s3://bucket/a.png"


@dataclass
class FakeLabelStudio:
    """A running server.

    Attributes:
        port: on the loopback interface.
        image: the content of all image files.
        elsewhere: the target of redirects.
        expired: access tokens that are no longer valid.
        requests: path and Authorization header of each request.
    """

    port: int
    image: bytes
    elsewhere: str = ""
    expired: set[str] = field(default_factory=set)
    requests: list[tuple[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}"

    def access_token(self) -> str:
        """The access token that a refresh returns."""
        return f"head.access{len(self.expired)}.signature"

    def accepts(self, authorization: str) -> bool:
        """Return whether a request's header is valid."""
        return authorization in (f"Token {LEGACY_TOKEN}", f"Bearer {self.access_token()}")


@contextmanager
def fake_label_studio(image: bytes) -> Iterator[FakeLabelStudio]:
    """Run the server while the block runs."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        fake = FakeLabelStudio(server.server_port, image)
        server.fake = fake  # type: ignore[attr-defined]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    @property
    def fake(self) -> FakeLabelStudio:
        fake: FakeLabelStudio = self.server.fake  # type: ignore[attr-defined]
        return fake

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization", "")
        self.fake.requests.append((self.path, authorization))
        parts = urlsplit(self.path)
        if parts.path.startswith("/public/"):
            self._send(200, self.fake.image)
        elif not self.fake.accepts(authorization):
            self._send(401, b"{}")
        elif parts.path == "/tasks/7/presign/":
            self._presign(parse_qs(parts.query)["fileuri"][0])
        elif parts.path.startswith("/data/redirect/"):
            self._send(302, b"", self.fake.elsewhere)
        elif parts.path.startswith(("/data/upload/", "/data/local-files/")):
            self._send(200, self.fake.image)
        else:
            self._send(404, b"{}")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_known = self.path == "/api/token/refresh/" and body == {"refresh": PERSONAL_TOKEN}
        content = json.dumps({"access": self.fake.access_token()}).encode()
        self._send(200 if is_known else 401, content if is_known else b"{}")

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _presign(self, encoded: str) -> None:
        is_known = base64.urlsafe_b64decode(encoded).decode() == BUCKET_URI
        self._send(303 if is_known else 404, b"", f"{self.fake.url}/data/upload/signed.png")

    def _send(self, status: int, content: bytes, location: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(content)
