"""The ASGI application: every route of the contract."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive

from d2serve.errors import (
    DeviceLostError,
    RequestError,
    bad_request,
    internal,
    method_not_allowed,
    not_found,
)
from d2serve.messages import MODEL_NAME, HttpRequest
from d2serve.outputs import open_inference_metadata as metadata
from d2serve.servers.asgi.body import BodyLimits
from d2serve.servers.asgi.cors import CorsMiddleware
from d2serve.servers.asgi.frame import Access, Frame
from d2serve.servers.asgi.metrics import ServerMetrics
from d2serve.servers.asgi.models import VERSIONS, Models, ServedModel, State
from d2serve.servers.asgi.openapi import openapi_json
from d2serve.servers.asgi.reading import read_request
from d2serve.servers.asgi.responses import own_error, to_asgi
from d2serve.servers.asgi.roboflow import RoboflowApi, Submit, Submitted
from d2serve.servers.body_memory import BodyMemory
from d2serve.servers.cors import Cors
from d2serve.servers.playground.routes import PageConfig, Target, page_routes
from d2serve.serving.requests import HttpResponse
from d2serve.settings import Settings

# `curl -T` sends PUT.
PREDICTION_METHODS = ("POST", "PUT")
PREDICT_SUFFIX = ":predict"


def create_app(
    models: Mapping[str, ServedModel] | Models,
    *,
    access: Access | None = None,
    metrics: ServerMetrics | None = None,
    cors_origins: Sequence[str] = (),
    body_timeout_s: float = 30.0,
    bodies: BodyMemory | None = None,
    on_device_lost: Callable[[], None] = lambda: None,
    playground: bool = True,
) -> Starlette:
    """Create an application that serves models.

    It runs in any ASGI server. Its state is in the arguments, so several can run in one process.

    Args:
        models: pipelines by name, or models that are still loading; the first is that of
            `/invocations`.
        access: access rules; by default requests need no token.
        metrics: the metrics of `/metrics`; by default new ones.
        cors_origins: origins such as `https://example.org` whose web pages may send requests;
            `*` for all.
        body_timeout_s: time in seconds in which a part of each request body must arrive.
        bodies: the memory of all request bodies; by default that of this application alone.
        on_device_lost: called when a model can never process a request again.
        playground: whether `GET /` is the playground page.

    Raises:
        CommandError: an origin is not valid.

    Examples:
        >>> app = create_app({"shapes": load_pipeline(...)})  # doctest: +SKIP
        >>> uvicorn.run(app)  # doctest: +SKIP
    """
    served = models if isinstance(models, Models) else Models.ready(models)
    api = Api(
        served, metrics or ServerMetrics(), bodies or BodyMemory(), body_timeout_s, on_device_lost
    )
    access = access or Access()
    cors = Middleware(CorsMiddleware, cors=Cors.of(cors_origins))
    frame = Middleware(Frame, models=served, access=access, on_error=api.metrics.count_error)
    page = partial(PageConfig, served.names, Target(), bool(access.token))
    app = Starlette(
        routes=[
            *api.routes(),
            *(page_routes(page) if playground else []),
            *RoboflowApi(served, api.exchange).routes(),
        ],
        middleware=[cors, frame] if cors_origins else [frame],
        exception_handlers={RequestError: api.on_request_error, HTTPException: api.on_http_error},
    )
    # A path with a slash too many is unknown; a redirect would lose the body.
    app.router.redirect_slashes = False
    return app


class Api:
    """The endpoints.

    Attributes:
        models: the served models.
        metrics: the metrics of the process.
        bodies: the memory of all request bodies.
        body_timeout_s: see `create_app`.
        on_device_lost: see `create_app`.
    """

    def __init__(
        self,
        models: Models,
        metrics: ServerMetrics,
        bodies: BodyMemory,
        body_timeout_s: float,
        on_device_lost: Callable[[], None],
    ) -> None:
        self.models = models
        self.metrics = metrics
        self.bodies = bodies
        self.body_timeout_s = body_timeout_s
        self.on_device_lost = on_device_lost

    def routes(self) -> list[Route]:
        """The routes of the contract's section 1."""
        predictions = (
            "/invocations",
            "/models/{name}/invoke",
            "/predictions/{name}",
            "/predictions/{name}/{version}",
            "/v1/models/{name}" + PREDICT_SUFFIX,
            "/v2/models/{name}/infer",
            "/v2/models/{name}/versions/{version}/infer",
        )
        documents = {
            "/ping": self.ping,
            "/metrics": self.get_metrics,
            "/openapi.json": self.get_openapi,
            "/v1/models": self.list_models,
            "/v1/models/{name}": self.v1_status,
            "/v2": self.server_metadata,
            "/v2/health/live": self.live,
            "/v2/health/ready": self.ready,
            "/v2/models/{name}": self.model_metadata,
            "/v2/models/{name}/versions/{version}": self.model_metadata,
            "/v2/models/{name}/ready": self.model_ready,
            "/v2/models/{name}/versions/{version}/ready": self.model_ready,
            "/v2/models/{name}/config": self.model_config,
            "/v2/models/{name}/versions/{version}/config": self.model_config,
        }
        return [
            *(Route(path, self.predict, methods=PREDICTION_METHODS) for path in predictions),
            *(Route(path, endpoint, methods=["GET"]) for path, endpoint in documents.items()),
        ]

    async def predict(self, request: Request) -> Response:
        """Process a prediction request with the core."""
        default = request.query_params.get(MODEL_NAME, self.models.names[0])
        model = self.models.get(self._name(request, default))
        model.check_room()

        async def submit(message: HttpRequest) -> Submitted:
            return [model.submit(message)]

        [response] = await self.exchange(request, model.settings, submit)
        return to_asgi(response)

    async def exchange(
        self, request: Request, settings: Settings, submit: Submit
    ) -> list[HttpResponse]:
        """Read a request, submit it to the core, and wait for the responses.

        Args:
            request: its body is not read yet.
            settings: the limits of the body.
            submit: submits the request, which may become several.

        Raises:
            RequestError: see `read_request`; 500 the device is lost.
        """
        limits = BodyLimits(settings.max_request_bytes, self.body_timeout_s)
        disconnected = threading.Event()
        with self.bodies.hold(settings.max_queued_bytes) as held:
            # No name here refers to the message, so that the core can free it early.
            submitted = await submit(
                await read_request(
                    request.scope,
                    request.receive,
                    limits,
                    held,
                    request.state.request_id,
                    disconnected.is_set,
                )
            )
            async with _watching_for_disconnect(request.receive, disconnected):
                return [await self._response_of(each) for each in submitted]

    async def _response_of(self, submitted: "Future[HttpResponse]") -> HttpResponse:
        """Wait for the core's response.

        Raises:
            RequestError: 500 the device is lost.
        """
        try:
            # Cancelling this task must not cancel the future, which the core completes.
            return await asyncio.shield(asyncio.wrap_future(submitted))
        except DeviceLostError:
            self.models.state = State.FAILED
            self.on_device_lost()
            raise internal() from None

    async def ping(self, _: Request) -> Response:
        """SageMaker's health check."""
        self.models.check_ready()
        return JSONResponse({"status": "Healthy"})

    async def get_metrics(self, _: Request) -> Response:
        """The metrics for Prometheus."""
        text = await asyncio.to_thread(self.metrics.render)
        return Response(text, headers={"content-type": self.metrics.content_type})

    async def get_openapi(self, _: Request) -> Response:
        """The OpenAPI document."""
        return Response(await asyncio.to_thread(openapi_json), media_type="application/json")

    async def list_models(self, _: Request) -> Response:
        """The names of all models (KServe v1)."""
        return JSONResponse({"models": list(self.models.names)})

    async def v1_status(self, request: Request) -> Response:
        """Readiness of a model (KServe v1)."""
        if request.path_params["name"].endswith(PREDICT_SUFFIX):
            raise method_not_allowed("POST")
        name = self._name(request)
        self.models.check_ready()
        return JSONResponse(metadata.v1_model_status(name))

    async def server_metadata(self, _: Request) -> Response:
        """The server and its extensions (Open Inference Protocol)."""
        return JSONResponse(metadata.server_metadata())

    async def live(self, _: Request) -> Response:
        """Liveness of the server."""
        return JSONResponse(metadata.live())

    async def ready(self, _: Request) -> Response:
        """Readiness of all models."""
        self.models.check_ready()
        return JSONResponse(metadata.ready())

    async def model_metadata(self, request: Request) -> Response:
        """The tensors of a model."""
        return JSONResponse(metadata.model_metadata(self._name(request)))

    async def model_ready(self, request: Request) -> Response:
        """Readiness of a model."""
        name = self._name(request)
        self.models.check_ready()
        return JSONResponse(metadata.model_ready(name))

    async def model_config(self, request: Request) -> Response:
        """The tensors of a model in the form of Triton's extension."""
        return JSONResponse(metadata.model_config(self._name(request)))

    async def on_request_error(self, request: Request, error: Exception) -> Response:
        """Respond to an error that an endpoint raised."""
        assert isinstance(error, RequestError)
        logs = self.models.logs_requests
        return own_error(request.scope, error, self.metrics.count_error, logs=logs)

    async def on_http_error(self, request: Request, error: Exception) -> Response:
        """Translate an error of Starlette's router."""
        assert isinstance(error, HTTPException)
        return await self.on_request_error(request, _translate(error))

    def _name(self, request: Request, default: str = "") -> str:
        """The name of the request's model.

        Raises:
            RequestError: 404 the model or version is unknown.
        """
        name: str = request.path_params.get("name", default)
        self.models.check_name(name, request.path_params.get("version", VERSIONS[0]))
        return name


def _translate(error: HTTPException) -> RequestError:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return not_found()
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return method_not_allowed(*sorted((error.headers or {})["Allow"].split(", ")))
    return bad_request("the request could not be parsed", "check it against /openapi.json")


@asynccontextmanager
async def _watching_for_disconnect(
    receive: Receive, disconnected: threading.Event
) -> AsyncIterator[None]:
    """Set the event when the client disconnects, or the task is cancelled, in the block.

    Ray Serve cancels the task of a client that has disconnected.
    """

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        disconnected.set()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        disconnected.set()
        raise
    finally:
        watcher.cancel()
