"""The ASGI application: every route of the contract."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from d2serve.errors import RequestError, bad_request, method_not_allowed, not_found
from d2serve.servers.asgi.cors import CorsMiddleware
from d2serve.servers.asgi.documents import Documents
from d2serve.servers.asgi.frame import Access, Frame
from d2serve.servers.asgi.metrics import ServerMetrics
from d2serve.servers.asgi.models import Models, ServedModel
from d2serve.servers.asgi.predictions import Predictions
from d2serve.servers.asgi.responses import own_error
from d2serve.servers.asgi.roboflow import RoboflowApi
from d2serve.servers.body_memory import BodyMemory
from d2serve.servers.cors import Cors
from d2serve.servers.playground.routes import PageConfig, Target, page_routes


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
    access, metrics = access or Access(), metrics or ServerMetrics()
    predictions = Predictions(served, bodies or BodyMemory(), body_timeout_s, on_device_lost)
    errors = ErrorHandlers(served, metrics)
    cors = Middleware(CorsMiddleware, cors=Cors.of(cors_origins))
    frame = Middleware(Frame, models=served, access=access, on_error=metrics.count_error)
    page = partial(PageConfig, served.names, Target(), bool(access.token))
    app = Starlette(
        routes=[
            *predictions.routes(),
            *Documents(served, metrics).routes(),
            *(page_routes(page) if playground else []),
            *RoboflowApi(served, predictions.exchange).routes(),
        ],
        middleware=[cors, frame] if cors_origins else [frame],
        exception_handlers={
            RequestError: errors.on_request_error,
            HTTPException: errors.on_http_error,
        },
    )
    # A path with a slash too many is unknown; a redirect would lose the body.
    app.router.redirect_slashes = False
    return app


class ErrorHandlers:
    """The responses to errors that endpoints and the router raise.

    Args:
        models: the served models.
        metrics: count the errors.
    """

    def __init__(self, models: Models, metrics: ServerMetrics) -> None:
        self.models = models
        self.metrics = metrics

    async def on_request_error(self, request: Request, error: Exception) -> Response:
        """Respond to an error that an endpoint raised."""
        assert isinstance(error, RequestError)
        logs = self.models.logs_requests
        return own_error(request.scope, error, self.metrics.count_error, logs=logs)

    async def on_http_error(self, request: Request, error: Exception) -> Response:
        """Translate an error of Starlette's router."""
        assert isinstance(error, HTTPException)
        return await self.on_request_error(request, _translate(error))


def _translate(error: HTTPException) -> RequestError:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return not_found()
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return method_not_allowed(*sorted((error.headers or {})["Allow"].split(", ")))
    return bad_request("the request could not be parsed", "check it against /openapi.json")
