"""Send requests with tritonclient, unmodified; runs where it is installed.

    python triton_client.py http|grpc HOST:PORT MODEL IMAGE.png IMAGE.npy

Prints a line of JSON for each case: its result, or the status and message of the exception.
"""

import asyncio
import base64
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException

# Parameters of the protocol that are not options of the server.
PROTOCOL_PARAMETERS: Mapping[str, Any] = {
    "priority": 1,
    "timeout": 60_000_000,
    "sequence_id": 7,
    "sequence_start": True,
    "sequence_end": True,
}


class Cases:
    """Each case sends requests and returns a value that JSON can represent."""

    def __init__(self, transport: str, address: str, model: str, png: bytes, array: Any) -> None:
        self.transport = transport
        self.address = address
        self.library = importlib.import_module(f"tritonclient.{transport}")
        self.client = self.library.InferenceServerClient(address)
        self.model = model
        self.png = png
        self.array = array

    def all(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        yield "live", self.client.is_server_live
        yield "ready", self.client.is_server_ready
        yield "model-ready", lambda: self.client.is_model_ready(self.model)
        yield "version-ready", lambda: self.client.is_model_ready(self.model, "1")
        yield "other-model-ready", lambda: self.client.is_model_ready("other")
        yield "server-metadata", lambda: _plain(self.client.get_server_metadata(), "name")
        yield "model-metadata", self.model_metadata
        yield "model-config", lambda: self.client.get_model_config(self.model)["name"]
        yield "image", lambda: self.infer(self.files(self.png))
        yield "array", lambda: self.infer(self.tensor(self.array))
        yield "batch-of-one", lambda: self.infer(self.tensor(self.array[None]))
        yield "floats", lambda: self.infer(self.tensor((self.array / 255).astype(np.float32)))
        yield "version", lambda: self.infer(self.files(self.png), model_version="1")
        yield "protocol-parameters", lambda: self.infer(self.files(self.png), **PROTOCOL_PARAMETERS)
        yield "requested-outputs", self.requested_outputs
        yield "request-id", self.request_id
        yield "options", self.options
        yield "several-images", self.several_images
        yield "asynchronous", lambda: asyncio.run(self.asynchronous())
        yield "unknown-option", lambda: self.infer(self.files(self.png), parameters={"nope": 1})
        yield "unknown-output", self.unknown_output
        yield "no-image", lambda: self.infer(self.files(b"text"))
        yield "other-model", lambda: self.client.infer("other", [self.files(self.png)])
        if self.transport == "http":
            yield "json-image", lambda: self.infer(self.json_image())
            yield "json-array", lambda: self.infer(self.tensor(self.array, binary_data=False))
            yield "json-outputs", self.json_outputs
        else:
            yield "typed-image", lambda: self.infer(self.typed("BYTES", [1], self.png))
            yield "typed-array", self.typed_array
            yield (
                "compressed",
                lambda: self.infer(self.files(self.png), compression_algorithm="gzip"),
            )

    def infer(self, tensor: Any, **options: Any) -> dict[str, Any]:
        return _detections(self.client.infer(self.model, [tensor], **options))

    def tensor(self, array: Any, **options: Any) -> Any:
        """An array with the library's default encoding."""
        datatype = {"uint8": "UINT8", "float32": "FP32"}[array.dtype.name]
        tensor = self.library.InferInput("image", list(array.shape), datatype)
        tensor.set_data_from_numpy(np.ascontiguousarray(array), **options)
        return tensor

    def files(self, *files: bytes, **options: Any) -> Any:
        """Encoded images with the library's default encoding."""
        tensor = self.library.InferInput("image", [len(files)], "BYTES")
        tensor.set_data_from_numpy(np.array(files, dtype=np.object_), **options)
        return tensor

    def json_image(self) -> Any:
        return self.files(base64.b64encode(self.png), binary_data=False)

    def typed(self, datatype: str, shape: list[int], *values: Any) -> Any:
        """A tensor in the message's typed contents, which tritonclient has no method for."""
        tensor = self.library.InferInput("image", shape, datatype)
        field = "bytes_contents" if datatype == "BYTES" else "uint_contents"
        getattr(tensor._get_tensor().contents, field).extend(values)
        return tensor

    def typed_array(self) -> dict[str, Any]:
        values = self.array.ravel().tolist()
        return self.infer(self.typed("UINT8", list(self.array.shape), *values))

    def model_metadata(self) -> Any:
        metadata = self.client.get_model_metadata(self.model)
        return [*_plain(metadata, "name", "inputs"), len(_plain(metadata, "outputs")[0])]

    def requested_outputs(self) -> dict[str, Any]:
        outputs = [self.library.InferRequestedOutput(name) for name in ("classes", "scores")]
        return self.infer(self.files(self.png), outputs=outputs)

    def json_outputs(self) -> dict[str, Any]:
        outputs = [
            self.library.InferRequestedOutput(name, binary_data=False)
            for name in ("boxes", "scores", "classes", "masks")
        ]
        return self.infer(self.files(self.png), outputs=outputs)

    def unknown_output(self) -> dict[str, Any]:
        outputs = [self.library.InferRequestedOutput("logits")]
        return self.infer(self.files(self.png), outputs=outputs)

    def request_id(self) -> list[str]:
        result = self.client.infer(self.model, [self.files(self.png)], request_id="order 42")
        return _plain(result.get_response(), "id", "model_name")

    def options(self) -> dict[str, Any]:
        parameters = {"max_detections": 1, "masks": "none"}
        return self.infer(self.files(self.png), parameters=parameters)

    def several_images(self) -> dict[str, Any]:
        result = self.client.infer(self.model, [self.files(self.png, self.png)])
        return {**_detections(result), "image_ids": result.as_numpy("image_ids").tolist()}

    async def asynchronous(self) -> dict[str, Any]:
        library = importlib.import_module(f"tritonclient.{self.transport}.aio")
        async with library.InferenceServerClient(self.address) as client:
            return _detections(await client.infer(self.model, [self.files(self.png)]))


def _detections(result: Any) -> dict[str, Any]:
    """The tensors of a response; masks as text."""
    names = ("boxes", "scores", "classes", "masks")
    found = {name: array for name in names if (array := result.as_numpy(name)) is not None}
    if "masks" in found:
        found["masks"] = np.array([_text(mask) for mask in found["masks"]])
    return {name: array.tolist() for name, array in found.items()}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _plain(message: Any, *fields: str) -> list[Any]:
    """Fields of a JSON object or of a protobuf message as plain values."""
    if not isinstance(message, dict):
        from google.protobuf.json_format import MessageToDict

        message = MessageToDict(message, preserving_proto_field_name=True)
    return [message[field] for field in fields]


def _outcome(case: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"result": case()}
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}


def main(transport: str, address: str, model: str, *, png: Path, npy: Path) -> None:
    """Run all cases."""
    cases = Cases(transport, address, model, png.read_bytes(), np.load(npy))
    for name, case in cases.all():
        print(json.dumps({"case": name, **_outcome(case)}))


if __name__ == "__main__":
    _, *texts, png_file, npy_file = sys.argv
    main(*texts, png=Path(png_file), npy=Path(npy_file))
