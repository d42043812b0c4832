"""The gRPC server with stand-ins for models."""

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from d2serve.errors import (
    CODES,
    DeviceLostError,
    RequestError,
    ServerError,
    overloaded,
    unauthorized,
)
from d2serve.messages import VERSION, HttpRequest
from d2serve.metadata import ModelMetadata
from d2serve.servers.asgi.grpc_protocol import SERVICE, message_class
from d2serve.servers.asgi.grpc_server import GrpcOptions, GrpcServer, start_grpc
from d2serve.servers.asgi.models import Models
from d2serve.servers.body_memory import BodyMemory
from d2serve.serving.requests import HttpResponse, error_response
from d2serve.settings import Settings
from tests.certificates import self_signed

TIMEOUT_S = 60.0
HEAD = json.dumps({"model_name": "shapes", "outputs": []}).encode()
SUCCESS = HttpResponse(
    200,
    "application/octet-stream",
    HEAD,
    {"Server-Timing": "decode;dur=1.0", "Inference-Header-Content-Length": str(len(HEAD))},
)


@dataclass
class FakeModel:
    """Returns one response; None never completes."""

    response: HttpResponse | BaseException | None = SUCCESS
    requests: list[HttpRequest] = field(default_factory=list)
    submitted: "list[Future[HttpResponse]]" = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return Settings()

    @property
    def model(self) -> ModelMetadata:
        return ModelMetadata("shapes", (), 0.5, 10)

    def check_room(self) -> None:
        return

    def submit(self, request: HttpRequest) -> "Future[HttpResponse]":
        self.requests.append(request)
        future: Future[HttpResponse] = Future()
        self.submitted.append(future)
        if isinstance(self.response, BaseException):
            future.set_exception(self.response)
        elif self.response is not None:
            future.set_result(self.response)
        return future


class Client:
    """Calls the methods of a server."""

    def __init__(self, channel: grpc.aio.Channel, server: GrpcServer) -> None:
        self.channel = channel
        self.server = server

    def call(self, name: str, request: Any = None, **options: Any) -> Any:
        request_class = message_class(f"{name}Request")
        method: Any = self.channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_class.SerializeToString,
            message_class(f"{name}Response").FromString,
        )
        return method(request_class() if request is None else request, **options)

    def call_raw(self, name: str, message: bytes = b"", **options: Any) -> Any:
        method: Any = self.channel.unary_unary(f"/{SERVICE}/{name}")
        return method(message, **options)

    def infer(self, model_name: str = "shapes", raw: bytes = b"ab", **options: Any) -> Any:
        request = message_class("ModelInferRequest")(
            model_name=model_name, raw_input_contents=[raw]
        )
        request.inputs.add(name="image", datatype="UINT8", shape=[1, len(raw)])
        return self.call("ModelInfer", request, **options)


@asynccontextmanager
async def serving(models: Models, **options: Any) -> AsyncIterator[Client]:
    server = await start_grpc(models, GrpcOptions(port=0, **options))
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Client(channel, server)
    finally:
        await server.stop(0)


def run(
    talk: Callable[[Client], Awaitable[Any]],
    model: FakeModel | None = None,
    models: Models | None = None,
    **options: Any,
) -> Any:
    """The result of `talk` with a client of a server."""

    async def main() -> Any:
        served = models or Models.ready({"shapes": model or FakeModel()})
        async with serving(served, **options) as client:
            return await asyncio.wait_for(talk(client), timeout=TIMEOUT_S)

    return asyncio.run(main())


def error_of(talk: Callable[[Client], Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        run(talk, *args, **kwargs)
    return caught.value


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_a_ready_server_reports_so() -> None:
    async def talk(client: Client) -> list[bool]:
        live, ready = await client.call("ServerLive"), await client.call("ServerReady")
        request = message_class("ModelReadyRequest")(name="shapes")
        model = await client.call("ModelReady", request)
        return [live.live, ready.ready, model.ready]

    assert run(talk) == [True, True, True]


def test_a_loading_server_is_live_but_not_ready() -> None:
    async def talk(client: Client) -> list[bool]:
        live, ready = await client.call("ServerLive"), await client.call("ServerReady")
        request = message_class("ModelReadyRequest")(name="shapes")
        model = await client.call("ModelReady", request)
        return [live.live, ready.ready, model.ready]

    assert run(talk, models=Models(["shapes"])) == [True, False, False]


def test_a_loading_server_refuses_requests() -> None:
    error = error_of(Client.infer, models=Models(["shapes"]))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "retry-after" in dict([*error.trailing_metadata()])


def test_metadata_of_the_server_and_the_model() -> None:
    async def talk(client: Client) -> tuple[Any, Any]:
        request = message_class("ModelMetadataRequest")(name="shapes")
        return await client.call("ServerMetadata"), await client.call("ModelMetadata", request)

    server, model = run(talk)
    assert (server.name, server.version) == ("d2serve", VERSION)
    assert (model.name, list(model.versions)) == ("shapes", ["1"])
    assert [(each.name, each.datatype, [*each.shape]) for each in model.inputs] == [
        ("image", "BYTES", [-1])
    ]
    assert model.outputs[0].name == "boxes"


def request_for(method: str, name: str, version: str) -> Any:
    prefix = "model_" if method == "ModelInfer" else ""
    fields = {f"{prefix}name": name, f"{prefix}version": version}
    return message_class(f"{method}Request")(**fields)


@pytest.mark.parametrize("version", ["", "1", "1.0"])
@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ModelInfer"])
def test_the_version_of_the_archive_is_accepted(method: str, version: str) -> None:
    run(lambda client: client.call(method, request_for(method, "shapes", version)))


@pytest.mark.parametrize(("name", "version"), [("other", "1"), ("shapes", "2")])
@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ModelInfer"])
def test_unknown_model_or_version_is_not_found(method: str, name: str, version: str) -> None:
    error = error_of(lambda client: client.call(method, request_for(method, name, version)))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "does not exist" in error.details()


def test_unknown_method_is_unimplemented() -> None:
    error = error_of(lambda client: client.call_raw("ModelStatistics"))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_request_reaches_the_core_like_one_over_http() -> None:
    model = FakeModel()
    metadata = (
        ("x-request-id", "order-42"),
        ("x-amzn-sagemaker-custom-attributes", "masks=none"),
        ("x-d2serve-arrived", "1"),
    )
    began = time.monotonic()
    run(lambda client: client.infer(metadata=metadata), model)
    [request] = model.requests
    length = int(request.headers["inference-header-content-length"])
    assert request.headers == {
        "content-type": "application/octet-stream",
        "accept": "application/json",
        "inference-header-content-length": str(length),
        "x-amzn-sagemaker-custom-attributes": "masks=none",
    }
    assert request.parts[0].body[length:] == b"ab"
    assert request.request_id == "order-42"
    assert request.is_open_inference
    assert request.deadline == math.inf
    assert request.arrived is not None
    assert began <= request.arrived <= time.monotonic()


def test_the_response_has_the_headers_of_http_as_trailing_metadata() -> None:
    async def talk(client: Client) -> tuple[Any, Any]:
        call = client.infer(metadata=(("x-request-id", "order-42"),))
        return await call, await call.trailing_metadata()

    response, metadata = run(talk)
    assert response.model_name == "shapes"
    assert dict([*metadata]) == {"server-timing": "decode;dur=1.0", "x-request-id": "order-42"}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (404, "NOT_FOUND"),
        (405, "INVALID_ARGUMENT"),
        (406, "INVALID_ARGUMENT"),
        (408, "DEADLINE_EXCEEDED"),
        (413, "RESOURCE_EXHAUSTED"),
        (415, "INVALID_ARGUMENT"),
        (422, "INVALID_ARGUMENT"),
        (431, "INVALID_ARGUMENT"),
        (499, "CANCELLED"),
        (500, "INTERNAL"),
        (503, "UNAVAILABLE"),
        (507, "RESOURCE_EXHAUSTED"),
    ],
)
def test_errors_of_the_core_have_the_message_and_a_code(status: int, code: str) -> None:
    refusal = RequestError(status, dict(CODES)[status], "it failed", "try another way")
    model = FakeModel(error_response(refusal, is_open_inference=True))
    error = error_of(Client.infer, model)
    assert (error.code().name, error.details()) == (code, "it failed; try another way")


def test_a_refusal_for_overload_names_the_time_to_wait() -> None:
    model = FakeModel(error_response(overloaded("full", 7), is_open_inference=True))
    error = error_of(Client.infer, model)
    assert dict([*error.trailing_metadata()])["retry-after"] == "7"


def test_an_internal_error_does_not_disclose_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    error = error_of(Client.infer, FakeModel(ValueError("secret")))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()
    assert "secret" in caplog.text


def test_a_lost_device_is_reported_to_the_server() -> None:
    lost: list[bool] = []
    error = error_of(
        Client.infer,
        FakeModel(DeviceLostError("lost")),
        on_device_lost=lambda: lost.append(True),
    )
    assert error.code() is grpc.StatusCode.INTERNAL
    assert lost == [True]


def test_the_deadline_of_the_client_reaches_the_core() -> None:
    model = FakeModel()
    start = time.monotonic()
    run(lambda client: client.infer(timeout=3600), model)
    assert 3000 < model.requests[0].deadline - start < 4200


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_the_core_learns_of_a_client_that_does_not_wait(how: str) -> None:
    model = FakeModel(response=None)

    async def talk(client: Client) -> None:
        await client.call("ServerReady")  # connects
        call = client.infer(timeout=1 if how == "deadline" else None)
        running = asyncio.ensure_future(call)
        await until(lambda: model.requests)
        if how == "cancel":
            assert not model.requests[0].is_disconnected()
            call.cancel()
        await until(model.requests[0].is_disconnected)
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await running
        # The core completes its future later.
        assert model.submitted[0].set_running_or_notify_cancel()

    run(talk, model)


def authorize(headers: Mapping[str, str]) -> None:
    if headers.get("authorization") != "Bearer right":
        raise unauthorized()


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),)])
@pytest.mark.parametrize("method", ["ServerMetadata", "ModelInfer", "NoSuchMethod"])
def test_calls_without_the_token_are_unauthenticated(
    method: str, metadata: tuple[tuple[str, str], ...]
) -> None:
    errors: list[RequestError] = []
    model = FakeModel()
    error = error_of(
        lambda client: client.call_raw(method, metadata=metadata),
        model,
        authorize=authorize,
        on_error=errors.append,
    )
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "token" in error.details()
    assert [each.status for each in errors] == [401]
    assert not model.requests


def test_calls_with_the_token_are_accepted() -> None:
    model = FakeModel()
    metadata = (("authorization", "Bearer right"),)
    run(lambda client: client.infer(metadata=metadata), model, authorize=authorize)
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    ("method", "route"), [("ModelInfer", f"/{SERVICE}/ModelInfer"), ("client text", "none")]
)
def test_refusals_are_logged_without_text_of_the_client(
    caplog: pytest.LogCaptureFixture, method: str, route: str
) -> None:
    with caplog.at_level(logging.INFO):
        error_of(lambda client: client.call_raw(method), authorize=authorize)
    [line] = [json.loads(text) for text in caplog.messages if '"event"' in text]
    assert (line["route"], line["status"], line["code"]) == (route, 401, "unauthorized")


@pytest.mark.parametrize("method", ["ServerLive", "ServerReady"])
def test_health_checks_need_no_token(method: str) -> None:
    run(lambda client: client.call(method), authorize=authorize)


def test_messages_above_the_limit_are_refused() -> None:
    model = FakeModel()
    run(lambda client: client.infer(raw=bytes(1_000_000)), model, max_request_bytes=1_000_000)
    error = error_of(
        lambda client: client.infer(raw=bytes(1_100_000)), model, max_request_bytes=1_000_000
    )
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(model.requests) == 1


def test_messages_and_bodies_together_are_limited() -> None:
    bodies, model = BodyMemory(), FakeModel(None)

    async def check() -> None:
        models = Models.ready({"shapes": model})
        async with serving(models, bodies=bodies, max_queued_bytes=10_000) as client:
            waiting = client.infer(raw=b"x" * 6_000)
            await until(lambda: model.submitted)
            assert bodies.held > 6_000
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await client.infer(raw=b"x" * 6_000)
            assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
            assert (await client.call("ServerReady")).ready
            model.submitted[0].set_result(SUCCESS)
            await waiting
            assert bodies.held == 0
            with bodies.hold(20_000) as body:  # of HTTP
                body.grow_to(9_000)
                with pytest.raises(grpc.aio.AioRpcError):
                    await client.infer(raw=b"x" * 2_000)

    asyncio.run(asyncio.wait_for(check(), TIMEOUT_S))


def test_damaged_message_is_invalid() -> None:
    error = error_of(lambda client: client.call_raw("ModelInfer", b"\xff\xff\xff"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "ModelInferRequest" in error.details()


def test_more_calls_than_the_limit_are_refused() -> None:
    model = FakeModel(response=None)

    async def talk(client: Client) -> Any:
        first = asyncio.ensure_future(client.infer())
        await until(lambda: model.requests)
        try:
            return await client.infer()
        finally:
            first.cancel()

    error = error_of(talk, model, max_calls=1)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_port_in_use_is_named() -> None:
    async def talk(client: Client) -> None:
        port = client.server.port
        with pytest.raises(ServerError, match=rf"127\.0\.0\.1:{port}; choose another port"):
            await start_grpc(Models(["shapes"]), GrpcOptions(port=port))

    run(talk)


async def until_refused(client: Client) -> None:
    with suppress(grpc.aio.AioRpcError):
        while await client.call("ServerLive"):
            await asyncio.sleep(0.005)


def test_stopping_completes_running_calls_and_refuses_new_ones() -> None:
    model = FakeModel(response=None)

    async def talk(client: Client) -> tuple[Any, Any]:
        running = asyncio.ensure_future(client.infer())
        await until(lambda: model.requests)
        stopping = asyncio.ensure_future(client.server.stop(10 * TIMEOUT_S))
        await until_refused(client)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.infer()
        model.submitted[0].set_result(SUCCESS)
        response = await running
        await stopping
        return response, refused.value

    response, refused = run(talk, model)
    assert response.model_name == "shapes"
    assert refused.code() is grpc.StatusCode.UNAVAILABLE


def test_stopping_cancels_calls_after_the_grace_period() -> None:
    model = FakeModel(response=None)

    async def talk(client: Client) -> None:
        running = asyncio.ensure_future(client.infer())
        await until(lambda: model.requests)
        await client.server.stop(0.2)
        with pytest.raises(grpc.aio.AioRpcError):
            await running

    run(talk, model)
    assert model.requests[0].is_disconnected()


def test_tls(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)

    async def main() -> Any:
        options = GrpcOptions(port=0, certificate=(certificate.chain, certificate.key))
        server = await start_grpc(Models.ready({"shapes": FakeModel()}), options)
        credentials = grpc.ssl_channel_credentials(certificate.chain.read_bytes())
        async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", credentials) as channel:
            ready = await Client(channel, server).call("ServerReady", timeout=TIMEOUT_S)
        await server.stop(0)
        return ready

    assert asyncio.run(main()).ready
