"""The prediction routes: requests that the core processes."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive

from d2serve.errors import DeviceLostError, internal
from d2serve.messages import MODEL_NAME, HttpRequest
from d2serve.servers.asgi.body import BodyLimits
from d2serve.servers.asgi.models import Models, State
from d2serve.servers.asgi.reading import read_request
from d2serve.servers.asgi.responses import to_asgi
from d2serve.servers.asgi.roboflow import Submit, Submitted
from d2serve.servers.body_memory import BodyMemory
from d2serve.serving.requests import HttpResponse
from d2serve.settings import Settings

PREDICT_SUFFIX = ":predict"
PATHS = (
    "/invocations",
    "/models/{name}/invoke",
    "/predictions/{name}",
    "/predictions/{name}/{version}",
    "/v1/models/{name}" + PREDICT_SUFFIX,
    "/v2/models/{name}/infer",
    "/v2/models/{name}/versions/{version}/infer",
)
# `curl -T` sends PUT.
METHODS = ("POST", "PUT")


class Predictions:
    """The endpoints of predictions.

    Args:
        models: the served models.
        bodies: the memory of all request bodies.
        body_timeout_s: time in seconds in which a part of each request body must arrive.
        on_device_lost: called when a model can never process a request again.
    """

    def __init__(
        self,
        models: Models,
        bodies: BodyMemory,
        body_timeout_s: float,
        on_device_lost: Callable[[], None],
    ) -> None:
        self.models = models
        self.bodies = bodies
        self.body_timeout_s = body_timeout_s
        self.on_device_lost = on_device_lost

    def routes(self) -> list[Route]:
        """The routes of PATHS."""
        return [Route(path, self.predict, methods=METHODS) for path in PATHS]

    async def predict(self, request: Request) -> Response:
        """Process a prediction request with the core."""
        default = request.query_params.get(MODEL_NAME, self.models.names[0])
        model = self.models.get(self.models.name_in(request.path_params, default))
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
