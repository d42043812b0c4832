"""Requests of the contract tests."""

import io
import json
import struct
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx
import numpy as np
from PIL import Image

from d2serve.messages import BINARY_HEADER
from tests.bodies import image_bytes, npy_bytes

Array: TypeAlias = "np.ndarray[Any, Any]"
# A route, with {model} for the model's name -> its URL.
At: TypeAlias = Callable[[str], str]
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
# Every route that accepts images.
INFERENCE_ROUTES = (
    "/invocations",
    "/models/{model}/invoke",
    "/predictions/{model}",
    "/predictions/{model}/1.0",
    "/v1/models/{model}:predict",
    "/v2/models/{model}/infer",
    "/v2/models/{model}/versions/1/infer",
)


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


@dataclass(frozen=True)
class BinaryTensor:
    """A tensor whose values follow the JSON of an Open Inference body.

    Attributes:
        datatype: UINT8, FP32 or BYTES.
        shape: the shape.
        values: little-endian; of BYTES, each element after its length in four bytes.
    """

    datatype: str
    shape: list[int]
    values: bytes

    @classmethod
    def of_array(cls, array: Array) -> "BinaryTensor":
        """A tensor of uint8 or float32."""
        datatype = {"uint8": "UINT8", "float32": "FP32"}[array.dtype.name]
        return cls(datatype, list(array.shape), array.tobytes())

    @classmethod
    def of_files(cls, *files: bytes) -> "BinaryTensor":
        """Encoded images or NPY files as they are."""
        values = b"".join(struct.pack("<I", len(file)) + file for file in files)
        return cls("BYTES", [len(files)], values)


def binary_inference_of(*tensors: BinaryTensor, **more: Any) -> Sent:
    """A body with binary tensors, as tritonclient.http sends it."""
    inputs = [
        {
            "name": f"input{index}",
            "datatype": tensor.datatype,
            "shape": tensor.shape,
            "parameters": {"binary_data_size": len(tensor.values)},
        }
        for index, tensor in enumerate(tensors)
    ]
    document = json.dumps({"inputs": inputs, **more}).encode()
    body = document + b"".join(tensor.values for tensor in tensors)
    headers = {BINARY_HEADER: str(len(document))}
    return Sent(body, "application/octet-stream", headers)


def tensors_of(response: httpx.Response) -> dict[str, Any]:
    """The outputs of an Open Inference response, binary ones included, as nested lists by name.

    The values of BYTES tensors are bytes.
    """
    length = int(response.headers.get(BINARY_HEADER, len(response.content)))
    content, position = json.loads(response.content[:length]), length
    tensors = {}
    for tensor in content["outputs"]:
        size = tensor.get("parameters", {}).get("binary_data_size")
        values = tensor.get("data") if size is None else response.content[position:][:size]
        position += size or 0
        tensors[tensor["name"]] = _values(tensor, values)
    assert position == len(response.content)
    return tensors


def _values(tensor: Mapping[str, Any], values: Any) -> Any:
    if tensor["datatype"] == "BYTES":
        return list(_elements(values)) if isinstance(values, bytes) else values
    if isinstance(values, bytes):
        values = np.frombuffer(values, {"FP32": "<f4", "INT64": "<i8"}[tensor["datatype"]])
    return np.reshape(values, tensor["shape"]).tolist()


def _elements(values: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(values):
        (size,) = struct.unpack_from("<I", values, position)
        yield values[position + 4 : position + 4 + size]
        position += 4 + size
