"""Send requests with the clients of the kserve package, unmodified; runs where it is installed.

    python kserve_client.py v1|v2|grpc URL MODEL IMAGE.png IMAGE.npy

Prints a line of JSON for each case: its result, or the message of the exception.
"""

import asyncio
import base64
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)

Case = Callable[[], Awaitable[Any]]


class V1Cases:
    """The REST client with its default protocol."""

    def __init__(self, url: str, model: str, png: bytes, array: Any) -> None:
        self.client = InferenceRESTClient(RESTConfig(protocol="v1"))
        self.url = url
        self.model = model
        self.text = base64.b64encode(png).decode()
        self.array = array

    def all(self) -> Iterator[tuple[str, Case]]:
        yield "model-ready", lambda: self.client.is_model_ready(self.url, self.model)
        yield "image", lambda: self.predict({"image_bytes": {"b64": self.text}})
        yield "array", lambda: self.predict(self.array.tolist())
        yield "no-image", lambda: self.predict({"image_bytes": {"b64": "text"}})
        yield "no-instances", lambda: self.predict()

    async def predict(self, *instances: Any) -> Any:
        data = {"instances": list(instances)}
        response = await self.client.infer(self.url, data, model_name=self.model)
        return response["predictions"]


class V2Cases:
    """The REST client or the gRPC client with the Open Inference Protocol."""

    def __init__(self, url: str, model: str, png: bytes, array: Any, is_grpc: bool) -> None:
        self.is_grpc = is_grpc
        self.url = url
        self.model = model
        self.png = png
        self.array = array
        self.client: Any = (
            InferenceGRPCClient(url) if is_grpc else InferenceRESTClient(RESTConfig(protocol="v2"))
        )
        # The REST client takes the URL with each call.
        self.target = () if is_grpc else (url,)

    def all(self) -> Iterator[tuple[str, Case]]:
        yield "live", lambda: self.client.is_server_live(*self.target)
        yield "ready", lambda: self.client.is_server_ready(*self.target)
        yield "model-ready", lambda: self.client.is_model_ready(*self.target, self.model)
        yield "other-model-ready", lambda: self.client.is_model_ready(*self.target, "other")
        yield "image", lambda: self.infer(self.files(self.png))
        yield "array", lambda: self.infer(self.tensor(self.array))
        yield "json-array", lambda: self.infer(self.tensor(self.array, binary_data=False))
        yield "all-binary", lambda: self.infer(self.files(self.png), binary_data_output=True)
        yield "options", lambda: self.infer(self.files(self.png), max_detections=1, masks="none")
        yield "unknown-option", lambda: self.infer(self.files(self.png), nope=1)
        yield "no-image", lambda: self.infer(self.files(b"text"))

    async def infer(self, tensor: InferInput, **parameters: Any) -> Any:
        request = InferRequest(self.model, [tensor], request_id="order 42", parameters=parameters)
        if self.is_grpc:
            response = await self.client.infer(request)
        else:
            response = await self.client.infer(self.url, request, model_name=self.model)
        outputs = {output.name: output.as_numpy().tolist() for output in response.outputs}
        if "masks" in outputs:
            outputs["masks"] = [_text(mask) for mask in outputs["masks"]]
        return {"id": response.id, "model_name": response.model_name, **outputs}

    def tensor(self, array: Any, binary_data: bool = True) -> InferInput:
        tensor = InferInput("image", list(array.shape), "UINT8")
        tensor.set_data_from_numpy(array, binary_data=binary_data)
        return tensor

    def files(self, *files: bytes) -> InferInput:
        tensor = InferInput("image", [len(files)], "BYTES")
        tensor.set_data_from_numpy(np.array(files, dtype=np.object_), binary_data=True)
        return tensor


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


async def _outcome(case: Case) -> dict[str, Any]:
    try:
        return {"result": await case()}
    except httpx.HTTPStatusError as error:
        return {"status": error.response.status_code, "message": str(error)}
    except grpc.aio.AioRpcError as error:
        return {"status": error.code().name, "message": error.details()}


async def main(protocol: str, url: str, model: str, *, png: Path, npy: Path) -> None:
    """Run all cases."""
    data = (url, model, png.read_bytes(), np.load(npy))
    cases = V1Cases(*data) if protocol == "v1" else V2Cases(*data, protocol == "grpc")
    for name, case in cases.all():
        print(json.dumps({"case": name, **await _outcome(case)}))


if __name__ == "__main__":
    _, *texts, png_file, npy_file = sys.argv
    asyncio.run(main(*texts, png=Path(png_file), npy=Path(npy_file)))
