"""Valid and invalid requests, and their expected responses."""

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from d2serve.detections import RGBImage
from d2serve.inputs.jpeg_decoders import JpegDecoder, decode_on_cpu
from d2serve.messages import HttpRequest, Part
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.reporter import SILENT, Reporter
from d2serve.serving.requests import HttpResponse
from d2serve.settings import Settings
from tests.bodies import image_bytes, noise, npy_bytes
from tests.fakes import FakeDetector, metadata_of

NAMES = ("ball", "cube")
SERVER_TIMING = re.compile(
    r"decode;dur=\d+\.\d\d, queue;dur=\d+\.\d\d, forward;dur=\d+\.\d\d, "
    r'encode;dur=\d+\.\d\d, batch;desc="(\d+)"'
)
# The pipelines of the running test; they are closed at its end.
OPENED: list[Pipeline] = []


def pipeline(
    detector: Any = None,
    names: Sequence[str] = NAMES,
    *,
    threads: int = 1,
    reporter: Reporter = SILENT,
    decode_jpeg: JpegDecoder = decode_on_cpu,
    server_forms_batches: bool = True,
    **settings: Any,
) -> Pipeline:
    """A pipeline that runs the images of all requests of a batch together."""
    opened = Pipeline(
        detector or FakeDetector(),
        metadata_of(*names),
        Settings(**{"images_per_forward": 100, **settings}),
        threads=threads,
        reporter=reporter,
        decode_jpeg=decode_jpeg,
        server_forms_batches=server_forms_batches,
    )
    OPENED.append(opened)
    return opened


def request_of(
    body: bytes,
    content_type: str = "",
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
) -> HttpRequest:
    return HttpRequest(headers or {}, (Part(content_type, body),), query or {}, "request-7")


def json_request(content: Any, headers: Mapping[str, str] | None = None) -> HttpRequest:
    return request_of(json.dumps(content).encode(), "application/json", headers)


def image(red: int, height: int = 40, width: int = 60) -> RGBImage:
    """Noise whose first pixel identifies it."""
    pixels = noise(height, width, 3, seed=red)
    pixels[0, 0] = (red, 0, 0)
    return pixels


def png_request(red: int, accept: str | None = None) -> HttpRequest:
    headers = {} if accept is None else {"accept": accept}
    return request_of(image_bytes(image(red), "PNG"), "image/png", headers)


def base64_png(red: int) -> str:
    return b64encode(image_bytes(image(red), "PNG")).decode()


GOOD = {
    "png": png_request(10),
    "bmp": request_of(image_bytes(image(20, 80, 30), "BMP"), "application/octet-stream"),
    "npy": request_of(npy_bytes(image(30)), "application/x-npy"),
    "npy-of-two": request_of(npy_bytes(np.stack((image(40), image(50)))), "application/x-npy"),
    "drawn-png": png_request(60, accept="image/png"),
    "drawn-jpeg": png_request(70, accept="image/jpeg"),
    "json": json_request({"image": base64_png(80)}),
    "json-of-two": json_request({"instances": [base64_png(90), base64_png(100)]}),
    "json-lines": request_of(json.dumps(base64_png(110)).encode(), "application/jsonlines"),
    "tensors": json_request(
        {"inputs": [{"shape": [1], "datatype": "BYTES", "data": [base64_png(120)]}]}
    ),
    "rows": png_request(130, accept="application/x-npy"),
    "query": request_of(image_bytes(image(140), "PNG"), query={"format": "clarify"}),
}
BAD = {
    "empty": (request_of(b""), 400, "bad_request"),
    "truncated": (request_of(image_bytes(image(1), "PNG")[:500]), 400, "bad_request"),
    "raw": (request_of(bytes(99), "application/x-npy"), 400, "bad_request"),
    "accept": (png_request(1, accept="text/html"), 406, "not_acceptable"),
    "large": (request_of(image_bytes(noise(99, 99), "PNG")), 413, "too_large"),
    "text": (request_of(b"hello", "text/plain"), 415, "unsupported_media_type"),
    "nested": (request_of(b"[" * 10_000, "application/json"), 400, "bad_request"),
    "option": (request_of(b"?", query={"size": "7"}), 400, "bad_request"),
    "int64": (request_of(npy_bytes(np.zeros((9, 9), dtype=np.int64))), 422, "unprocessable"),
}
MAX_PIXELS = 5000


def first_pixels(response: HttpResponse) -> list[float]:
    content = json.loads(response.body)
    objects = content.get("predictions", [content])
    return [round(item["scores"][0] * 255) for item in objects]


def require_error(response: HttpResponse, status: int, code: str) -> None:
    content = json.loads(response.body)
    assert (response.status, response.content_type) == (status, "application/json")
    assert list(content) == ["error"]
    assert sorted(content["error"]) == ["code", "hint", "message"]
    assert content["error"]["code"] == code
    assert all(isinstance(text, str) and text for text in content["error"].values())


def batch_size(response: HttpResponse) -> int:
    match = SERVER_TIMING.fullmatch(response.headers["Server-Timing"])
    assert match is not None
    return int(match[1])
