"""The routes that Label Studio calls."""

import hmac
import json
import logging
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from d2serve.errors import CommandError, RequestError, bad_request, too_large
from d2serve.integrations.label_studio.backend import Backend

logger = logging.getLogger(__name__)
MAX_BODY_BYTES = 64 << 20
COPY_FIX = "send the project's labeling config as Label Studio stores it"


def create_app(backend: Backend, basic_auth: str = "") -> Starlette:
    """Create the application.

    Args:
        backend: predicts the labels of tasks.
        basic_auth: `USER:PASSWORD` that requests need that reach the model; empty for none.
    """
    routes = Routes(backend, basic_auth)
    return Starlette(
        routes=[
            Route("/", routes.health, methods=["GET"]),
            Route("/health", routes.health, methods=["GET"]),
            Route("/setup", routes.guarded(routes.setup), methods=["POST"]),
            Route("/validate", routes.guarded(routes.setup), methods=["POST"]),
            Route("/predict", routes.guarded(routes.predict), methods=["POST"]),
            Route("/versions", routes.guarded(routes.versions), methods=["GET"]),
            Route("/webhook", routes.webhook, methods=["POST"]),
            Route("/train", routes.webhook, methods=["POST"]),
        ]
    )


def serve(backend: Backend, address: str, port: int, basic_auth: str = "") -> None:
    """Serve the application until a signal stops it, and close the backend."""
    try:
        uvicorn.run(create_app(backend, basic_auth), host=address, port=port, log_config=None)
    finally:
        backend.close()


class Routes:
    """Endpoints of the application; see `create_app`."""

    def __init__(self, backend: Backend, basic_auth: str) -> None:
        self._backend = backend
        # Label Studio sends credentials as Latin-1, most clients as UTF-8.
        encoded = {basic_auth.encode(), basic_auth.encode("latin-1", "replace")}
        self._authorizations = [b"Basic " + b64encode(each) for each in encoded if each]

    def guarded(
        self, endpoint: Callable[[Any], Awaitable[Any]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Check a request's credentials and body, and convert errors to responses."""

        async def respond(request: Request) -> Response:
            if not self._is_authorized(request):
                return _unauthorized()
            try:
                return JSONResponse(await endpoint(await _json_body(request)))
            except CommandError as cause:
                error = bad_request(str(cause), COPY_FIX)
            except RequestError as cause:
                error = cause
            logger.warning("%s: %s", request.url.path, error.message)
            return JSONResponse(error.body(), error.status)

        return respond

    async def health(self, request: Request) -> Response:
        """Report that the backend can predict; credentials are optional, but not wrong ones."""
        if "authorization" in request.headers and not self._is_authorized(request):
            return _unauthorized()
        return JSONResponse({"status": "UP", "model_class": "d2serve"})

    async def setup(self, body: dict[str, Any]) -> dict[str, Any]:
        """Check a project's labeling config; its token and host are ignored.

        Raises:
            CommandError: the config is not valid.
        """
        self._backend.check(_config(body, "schema", "config"))
        return {"model_version": self._backend.model_version}

    async def predict(self, body: dict[str, Any]) -> dict[str, Any]:
        """Predict the labels of tasks.

        Raises:
            CommandError: the config is not valid.
            RequestError: the tasks are not a list of objects with data.
        """
        tasks, config = body.get("tasks"), _config(body, "label_config")
        if not isinstance(tasks, list) or not all(map(_is_task, tasks)):
            raise bad_request(
                "`tasks` is not a list of objects with `data`", "send Label Studio's tasks"
            )
        results = await run_in_threadpool(self._backend.predict, tasks, config)
        return {"results": results, "model_version": self._backend.model_version}

    async def versions(self, _: dict[str, Any]) -> dict[str, Any]:
        """List the model's only version."""
        return {"versions": [self._backend.model_version]}

    async def webhook(self, _: Request) -> Response:
        """Ignore events, which come without credentials: this backend does not train."""
        return JSONResponse({})

    def _is_authorized(self, request: Request) -> bool:
        given = request.headers.get("authorization", "").encode()
        matches = [hmac.compare_digest(given, each) for each in self._authorizations]
        return any(matches) or not matches


def _unauthorized() -> Response:
    error = RequestError(
        401,
        "unauthorized",
        "the user or password is missing or wrong",
        "enter those of --basic-auth-file in Label Studio's model settings",
    )
    return JSONResponse(error.body(), error.status, {"WWW-Authenticate": "Basic"})


async def _json_body(request: Request) -> dict[str, Any]:
    """The object in the body; empty without a body.

    Raises:
        RequestError: it is too large or not a JSON object.
    """
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise too_large(f"the body has more than {MAX_BODY_BYTES} bytes", "send fewer tasks")
    try:
        body = json.loads(content or b"{}")
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the body is not JSON: {error}", "send a JSON object") from error
    if not isinstance(body, dict):
        raise bad_request("the body is not a JSON object", "send a JSON object")
    return body


def _config(body: dict[str, Any], *keys: str) -> str:
    """The labeling config in the first of these keys that exists; an empty view without one."""
    config = next((body[key] for key in keys if body.get(key) is not None), "<View/>")
    if not isinstance(config, str):
        raise bad_request(f"`{keys[0]}` is not a string", COPY_FIX)
    return config


def _is_task(task: Any) -> bool:
    return isinstance(task, dict) and isinstance(task.get("data"), dict)
