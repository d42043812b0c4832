"""A server of the page whose responses the test chooses."""

import json
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from d2serve.masks.decoding import decode_rles
from d2serve.masks.rle import encode_rles
from d2serve.servers.playground.files import PAGE, page_files
from d2serve.servers.playground.routes import CONFIG, PageConfig, Target

Answer: TypeAlias = "tuple[int, str | dict[str, Any]]"


class Stub(ThreadingHTTPServer):
    """Serves the page, and `answer` in place of predictions.

    Attributes:
        answer: status and body, as text or JSON.
        config: settings of the page.
        received: path and headers of the predictions.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: Callable[[], Answer] = lambda: (200, prediction())
        self.config = PageConfig(("model",), Target(), token=False)
        self.received: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def respond(self, status: int, content: str | dict[str, Any]) -> None:
        """Set the answer."""
        self.answer = lambda: (status, content)

    def __enter__(self) -> "Stub":
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        name = self.path.removeprefix("/playground/") if self.path != "/" else PAGE
        if self.path == CONFIG:
            self._send(200, self.server.config.to_json(), {"Content-Type": "application/json"})
        elif file := page_files().get(name):
            self._send(*file.response({}))
        else:
            self._send(404, b"", {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, dict(self.headers.items())))
        status, content = self.server.answer()
        text = content if isinstance(content, str) else json.dumps(content)
        timing = {"Server-Timing": 'decode;dur=1.5, forward;dur=20.25, batch;desc="3"'}
        self._send(status, text.encode(), timing)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output short."""


def prediction(
    width: int = 64, height: int = 48, names: tuple[str, ...] = ("dog", "cat"), **fields: Any
) -> dict[str, Any]:
    """A response in the default format: one square instance per name, in a row."""
    count = len(names)
    side = max(2, min(width // max(1, count), height) - 1)
    corners = [(index * (side + 1) % (width - side), 4) for index in range(count)]
    boxes = [[x, y, x + side, min(y + side, height)] for x, y in corners]
    return {
        "labels": [f"{name} 90%" for name in names],
        "boxes": boxes,
        "scores": [round(0.95 - 0.9 * index / max(2, count), 6) for index in range(count)],
        "classes": list(range(count)),
        "names": list(names),
        "masks": [rectangle_rle(box, width, height) for box in boxes],
        "prediction": [],
        "image": {"width": width, "height": height},
        **fields,
    }


def large_prediction(count: int = 300, width: int = 4000, height: int = 3000) -> dict[str, Any]:
    """Many large overlapping ellipses, 72 megapixels of masks together."""
    generator = np.random.default_rng(1)
    sizes = generator.integers(200, 900, (count, 2))
    corners = (generator.random((count, 2)) * ((width, height) - sizes)).astype(int)
    boxes = np.hstack((corners, corners + sizes)).tolist()
    return {
        **prediction(width, height, ()),
        "labels": [f"class {index % 20} 50%" for index in range(count)],
        "boxes": boxes,
        "scores": np.linspace(0.99, 0.05, count).round(6).tolist(),
        "classes": [index % 20 for index in range(count)],
        "names": [f"class {index % 20}" for index in range(count)],
        "masks": [ellipse_rle(box, width, height) for box in boxes],
    }


def ellipse_rle(box: Sequence[int], width: int, height: int) -> dict[str, Any]:
    """The compressed RLE of the ellipse in a box."""
    x1, y1, x2, y2 = box
    columns = np.arange(x1, x2)
    offsets = (columns + 0.5 - (x1 + x2) / 2) / ((x2 - x1) / 2)
    halves = (np.sqrt(1 - offsets**2) * (y2 - y1) / 2).astype(int)
    middle = (y1 + y2) // 2
    starts = columns * height + middle
    bounds = np.stack((starts - halves, starts + halves), axis=1).ravel()
    return _rle(bounds, width, height)


def rectangle_rle(box: Sequence[int], width: int, height: int) -> dict[str, Any]:
    """The compressed RLE of a rectangle."""
    x1, y1, x2, y2 = box
    columns = np.arange(x1, x2)
    bounds = np.stack((columns * height + y1, columns * height + y2), axis=1).ravel()
    return _rle(bounds, width, height)


def _rle(bounds: "npt.NDArray[np.int64]", width: int, height: int) -> dict[str, Any]:
    """The RLE of pixels between pairs of bounds."""
    lengths = np.diff(bounds, prepend=0, append=width * height).tolist()
    runs = decode_rles([{"size": [height, width], "counts": lengths}], (height, width))
    return dict(encode_rles(runs)[0])
