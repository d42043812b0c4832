"""The gRPC server beside the HTTP server of the same process."""

import asyncio
import functools
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from d2serve.errors import RequestError, ServerError, internal
from d2serve.messages import BINARY_HEADER
from d2serve.servers.asgi.grpc_messages import infer_response
from d2serve.servers.asgi.grpc_protocol import SERVICE, message_class
from d2serve.servers.asgi.grpc_service import Call, InferenceService
from d2serve.servers.asgi.models import Models
from d2serve.servers.asgi.reading import request_id_of
from d2serve.servers.asgi.responses import report_error
from d2serve.servers.body_memory import BodyMemory
from d2serve.serving.requests import HttpResponse, error_response

logger = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Method: TypeAlias = Callable[[Any, Call], Awaitable[Any]]

DEFAULT_PORT = 8001
# The status codes of the contract's errors. Other errors of the client are INVALID_ARGUMENT.
CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    503: grpc.StatusCode.UNAVAILABLE,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
# Load balancers and Kubernetes call these without a token.
HEALTH_METHODS = ("ServerLive", "ServerReady")
# The message around the tensors of a request of the maximum size.
ENVELOPE_BYTES = 65_536


@dataclass(frozen=True)
class GrpcOptions:
    """The address and the limits of the gRPC server.

    Attributes:
        address: IP address to listen on.
        port: TCP port; 0 for a free one.
        authorize: raises RequestError 401 unless the metadata, with lower-case names, has a valid
            token. Health checks need none.
        certificate: PEM files of the certificate chain and of its private key; None without TLS.
        max_request_bytes: maximum size of the tensors of a request.
        max_values: maximum number of values in the typed contents of a request.
        max_calls: maximum number of calls at the same time.
        bodies: the memory of the bodies of all requests.
        max_queued_bytes: maximum size of all bodies together.
        on_error: counts an error that the core does not know of.
        on_device_lost: called when a model can never process a request again.
    """

    address: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    authorize: Callable[[Mapping[str, str]], None] = lambda _: None
    certificate: tuple[Path, Path] | None = None
    max_request_bytes: int = 100_000_000
    max_values: int = 10_000_000
    max_calls: int = 1024
    bodies: BodyMemory = field(default_factory=BodyMemory)
    max_queued_bytes: int = 1_000_000_000
    on_error: Callable[[RequestError], None] = lambda _: None
    on_device_lost: Callable[[], None] = lambda: None


class GrpcServer:
    """A running gRPC server, from `start_grpc`.

    Attributes:
        port: the port that it listens on.
    """

    def __init__(self, server: grpc.aio.Server, port: int) -> None:
        self._server = server
        self.port = port

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls at once, and cancel those that still run after `grace_s` seconds."""
        await self._server.stop(grace_s)


async def start_grpc(models: Models, options: GrpcOptions) -> GrpcServer:
    """Serve models over gRPC in the running event loop.

    Raises:
        ServerError: the address or the port cannot be used.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", options.max_request_bytes + ENVELOPE_BYTES),
            ("grpc.max_send_message_length", -1),
            # Two servers that share a port would each get some of the clients.
            ("grpc.so_reuseport", 0),
        ],
        maximum_concurrent_rpcs=options.max_calls,
    )
    server.add_generic_rpc_handlers((_Routes(models, options),))
    port = _listen(server, options)
    await server.start()
    return GrpcServer(server, port)


class _Routes(grpc.GenericRpcHandler):
    """The methods by name, with authorization before a message is read."""

    def __init__(self, models: Models, options: GrpcOptions) -> None:
        service = InferenceService(models, options.max_values, options.on_device_lost)
        self._options = options
        self._handlers = {
            _route(name): self._handler(name, method)
            for name, method in (
                ("ServerLive", service.server_live),
                ("ServerReady", service.server_ready),
                ("ServerMetadata", service.server_metadata),
                ("ModelReady", service.model_ready),
                ("ModelMetadata", service.model_metadata),
                ("ModelInfer", service.model_infer),
            )
        }

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """The handler of a call; None for a method that does not exist."""
        try:
            if details.method not in map(_route, HEALTH_METHODS):
                self._options.authorize(_headers_of(details.invocation_metadata))
        except RequestError as error:
            # Logs must not contain text of the client.
            route = details.method if details.method in self._handlers else "none"
            # A streaming handler does not wait for the message.
            return grpc.stream_unary_rpc_method_handler(
                functools.partial(self._refuse, route, error)
            )
        return self._handlers.get(details.method)

    def _handler(self, name: str, method: Method) -> "grpc.RpcMethodHandler[Any, Any]":
        is_parsed = name != "ModelInfer"
        return grpc.unary_unary_rpc_method_handler(
            functools.partial(self._respond, _route(name), method),
            message_class(f"{name}Request").FromString if is_parsed else None,
            message_class(f"{name}Response").SerializeToString,
        )

    async def _respond(self, route: str, method: Method, request: Any, context: Context) -> Any:
        call = _call_of(context)
        try:
            with self._options.bodies.hold(self._options.max_queued_bytes) as held:
                if isinstance(request, bytes):
                    held.grow_to(len(request))
                result = await method(request, call)
        except RequestError as error:
            result = self._own_error(route, error, call)
        except Exception:
            logger.exception("the gRPC method %s failed", route)
            result = self._own_error(route, internal(), call)
        return await _message(result, context, call) if isinstance(result, HttpResponse) else result

    async def _refuse(self, route: str, error: RequestError, _: Any, context: Context) -> None:
        call = _call_of(context)
        await _message(self._own_error(route, error, call), context, call)

    def _own_error(self, route: str, error: RequestError, call: Call) -> HttpResponse:
        """Log and count an error that the core does not know of."""
        report_error(error, {"id": call.request_id, "route": route})
        self._options.on_error(error)
        return error_response(error, is_open_inference=True)


async def _message(response: HttpResponse, context: Context, call: Call) -> Any:
    """The ModelInferResponse of a response of the core; ends the call if it is an error."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    head_length = int(headers.pop(BINARY_HEADER.lower(), len(response.body)))
    metadata = (("x-request-id", call.request_id), *headers.items())
    if response.status == 200:
        context.set_trailing_metadata(metadata)
        return await asyncio.to_thread(infer_response, response.body, head_length)
    details = json.loads(response.body)["error"]
    return await context.abort(status_code(response.status), details, metadata)


def status_code(status: int) -> grpc.StatusCode:
    """The gRPC status code of an HTTP status of the contract.

    Examples:
        >>> status_code(422).name, status_code(500).name
        ('INVALID_ARGUMENT', 'INTERNAL')
    """
    is_fault = status >= 500
    default = grpc.StatusCode.INTERNAL if is_fault else grpc.StatusCode.INVALID_ARGUMENT
    return CODES.get(status, default)


def _route(name: str) -> str:
    return f"/{SERVICE}/{name}"


def _call_of(context: Context) -> Call:
    arrived, remaining = time.monotonic(), context.time_remaining()
    metadata = _headers_of(context.invocation_metadata() or ())
    deadline = math.inf if remaining is None else arrived + remaining
    return Call(metadata, request_id_of(metadata), arrived, deadline)


def _headers_of(metadata: Any) -> dict[str, str]:
    return {name: value for name, value in metadata if isinstance(value, str)}


def _listen(server: grpc.aio.Server, options: GrpcOptions) -> int:
    """Open the port; return its number."""
    host = f"[{options.address}]" if ":" in options.address else options.address
    target = f"{host}:{options.port}"
    try:
        if options.certificate is None:
            return server.add_insecure_port(target)
        chain, key = (file.read_bytes() for file in options.certificate)
        return server.add_secure_port(target, grpc.ssl_server_credentials([(key, chain)]))
    except RuntimeError as error:
        raise ServerError(
            f"gRPC cannot listen on {target}; choose another port with --grpc-port"
        ) from error
