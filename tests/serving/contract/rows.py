"""Requests of the contract tests."""

import io
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx
import numpy as np
from PIL import Image

from tests.bodies import image_bytes, npy_bytes

Array: TypeAlias = "np.ndarray[Any, Any]"
# A route, with {model} for the model's name -> its URL.
At: TypeAlias = Callable[[str], str]
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


@dataclass(frozen=True)
class Sent:
    """A request: body, declared type and further headers."""

    body: bytes
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def post(self, http: httpx.Client, url: str, **query: str) -> httpx.Response:
        """Send the request; return the response."""
        declared = {} if self.content_type is None else {"Content-Type": self.content_type}
        headers = {**declared, **self.headers}
        return http.post(url, content=self.body, headers=headers, params=query or None)


def json_of(content: Any, **headers: str) -> Sent:
    """A JSON body."""
    return Sent(json.dumps(content).encode(), "application/json", headers)


def png_of(image: Array, **headers: str) -> Sent:
    """A PNG of UInt8[H, W, 3] RGB or UInt8[H, W]."""
    return Sent(image_bytes(image, "PNG"), "image/png", headers)


def npy_of(array: Array, attributes: str = "") -> Sent:
    """An NPY body, with options in the custom attributes."""
    headers = {CUSTOM_ATTRIBUTES: attributes} if attributes else {}
    return Sent(npy_bytes(array), "application/x-npy", headers)


def base64_of(body: bytes) -> str:
    """Standard base64."""
    return b64encode(body).decode()


def url_safe_base64_of(body: bytes) -> str:
    """URL-safe base64, without padding."""
    return urlsafe_b64encode(body).decode().rstrip("=")


def open_inference_of(datatype: str, data: Any, shape: list[int], **more: Any) -> Sent:
    """A body of the Open Inference Protocol with one tensor."""
    tensor = {"name": "image", "datatype": datatype, "shape": shape, "data": data}
    return json_of({"inputs": [tensor], **more})


def opened(body: bytes) -> Image.Image:
    """The image in a body."""
    return Image.open(io.BytesIO(body))
