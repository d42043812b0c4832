"""The methods of the Open Inference Protocol over gRPC."""

import asyncio
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from d2serve.errors import DeviceLostError, internal
from d2serve.messages import BINARY_HEADER, JSON_TYPE, HttpRequest, Part
from d2serve.outputs.open_inference_metadata import model_metadata, server_metadata
from d2serve.servers.asgi.grpc_messages import infer_body, parse_request
from d2serve.servers.asgi.grpc_protocol import message_class
from d2serve.servers.asgi.models import VERSIONS, Models, State
from d2serve.serving.requests import HttpResponse

RAW_TYPE = "application/octet-stream"
# Metadata that the core reads as headers.
FORWARDED = ("x-amzn-sagemaker-custom-attributes", "x-d2serve-timeout-ms")


@dataclass(frozen=True)
class Call:
    """A call, without its message.

    Attributes:
        metadata: with lower-case names.
        request_id: the server's identifier of the call.
        arrived: arrival time in seconds of `time.monotonic`.
        deadline: time after which the client does not wait any more, in seconds of
            `time.monotonic`.
    """

    metadata: Mapping[str, str]
    request_id: str
    arrived: float
    deadline: float = math.inf


class InferenceService:
    """The methods of `inference.GRPCInferenceService`.

    Args:
        models: the models of this process.
        max_values: maximum number of values in the typed contents of a request.
        on_device_lost: called when a model can never process a request again.
    """

    def __init__(self, models: Models, max_values: int, on_device_lost: Callable[[], None]) -> None:
        self._models = models
        self._max_values = max_values
        self._on_device_lost = on_device_lost

    async def server_live(self, _request: Any, _call: Call) -> Any:
        """Return that the process responds."""
        return message_class("ServerLiveResponse")(live=True)

    async def server_ready(self, _request: Any, _call: Call) -> Any:
        """Return whether all models are available."""
        return message_class("ServerReadyResponse")(ready=self._is_ready())

    async def server_metadata(self, _request: Any, _call: Call) -> Any:
        """Return the name and the version of the server; its extensions are those of HTTP."""
        document = server_metadata()
        return message_class("ServerMetadataResponse")(
            name=document["name"], version=document["version"]
        )

    async def model_ready(self, request: Any, _call: Call) -> Any:
        """Return whether a model is available.

        Raises:
            RequestError: 404, the model is unknown.
        """
        self._models.check_name(request.name, request.version or VERSIONS[0])
        return message_class("ModelReadyResponse")(ready=self._is_ready())

    async def model_metadata(self, request: Any, _call: Call) -> Any:
        """Return the inputs and outputs of a model.

        Raises:
            RequestError: 404, the model is unknown.
        """
        self._models.check_name(request.name, request.version or VERSIONS[0])
        return message_class("ModelMetadataResponse")(**model_metadata(request.name))

    async def model_infer(self, message: bytes, call: Call) -> HttpResponse:
        """Run a ModelInferRequest; return the core's response with binary tensors, or its error.

        If the caller cancels this, the core learns that the client has disconnected.

        Raises:
            RequestError: 400, 413 or 422 the message cannot be used, 404 the model is unknown,
                500 the device is lost,
                503 the model is not available now.
        """
        # Large messages would block the event loop.
        request, body, head_length = await asyncio.to_thread(self._translate, message)
        headers = {name: call.metadata[name] for name in FORWARDED if name in call.metadata}
        headers |= {"content-type": RAW_TYPE, "accept": JSON_TYPE}
        headers[BINARY_HEADER.lower()] = str(head_length)
        self._models.check_name(request.model_name, request.model_version or VERSIONS[0])
        disconnected = threading.Event()
        submitted = self._models.get(request.model_name).submit(
            HttpRequest(
                headers=headers,
                parts=(Part(RAW_TYPE, body),),
                request_id=call.request_id,
                arrived=call.arrived,
                deadline=call.deadline,
                is_disconnected=disconnected.is_set,
                is_open_inference=True,
            )
        )
        try:
            # Without the shield, the cancellation would reach the core's future.
            return await asyncio.shield(asyncio.wrap_future(submitted))
        except asyncio.CancelledError:
            disconnected.set()
            raise
        except DeviceLostError:
            self._on_device_lost()
            raise internal() from None

    def _translate(self, message: bytes) -> tuple[Any, bytes, int]:
        request = parse_request(message)
        return request, *infer_body(request, self._max_values)

    def _is_ready(self) -> bool:
        return self._models.state is State.READY
