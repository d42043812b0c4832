"""Identify, admit and complete every request, and report errors as the contract defines them."""

import hmac
import logging
from dataclasses import dataclass, field
from http import HTTPStatus

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from d2serve.errors import RequestError, internal, overloaded, unauthorized
from d2serve.servers.asgi.body import is_short
from d2serve.servers.asgi.models import RETRY_AFTER_S, Models, State
from d2serve.servers.asgi.reading import headers_of, request_id_of
from d2serve.servers.asgi.responses import OnError, own_error
from d2serve.servers.playground.routes import is_page
from d2serve.serving.log_context import request_context

logger = logging.getLogger(__name__)
# Load balancers and Kubernetes call these without a token.
HEALTH_ROUTES = ("/ping", "/v2/health/live", "/v2/health/ready")
READING_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass
class Access:
    """Limits of the requests: their token and their number at a time.

    Attributes:
        token: the bearer token that requests need, except for health checks and the playground's
            page; empty for none.
        max_requests: maximum number of predictions in progress.
        in_progress: the current number of predictions.
    """

    token: str = field(default="", repr=False)
    max_requests: int = 1024
    in_progress: int = 0

    def check_token(self, authorization: str) -> None:
        """Compare in constant time.

        Args:
            authorization: the value of the request's header.

        Raises:
            RequestError: 401 the token is missing or wrong.
        """
        scheme, _, given = authorization.partition(" ")
        is_equal = hmac.compare_digest(given.strip().encode(), self.token.encode())
        if self.token and not (scheme.lower() == "bearer" and is_equal):
            raise unauthorized()

    def check_capacity(self) -> None:
        """Check the number of requests in progress, including the one that is checked.

        Raises:
            RequestError: 503 there are too many.
        """
        if self.in_progress > self.max_requests:
            raise overloaded("too many requests are in progress", RETRY_AFTER_S)


class Frame:
    """ASGI middleware that frames every request.

    Args:
        app: the application.
        models: the served models.
        access: the access rules; counts the predictions in progress.
        on_error: called with every error that the server reports itself.
    """

    def __init__(self, app: ASGIApp, models: Models, access: Access, on_error: OnError) -> None:
        self.app = app
        self.models = models
        self.access = access
        self.on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; no exception leaves this method."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        _resolve_absolute_form(scope)
        headers = headers_of(scope)
        request_id = request_id_of(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        exchange = _Exchange(scope, receive, send, request_id, self.models)
        is_prediction = scope["method"] not in READING_METHODS
        self.access.in_progress += is_prediction
        with request_context(request_id):
            try:
                self._admit(scope, headers.get("authorization", ""), is_prediction)
                await self.app(scope, exchange.receive, exchange.send)
            except RequestError as error:
                await self._own_error(scope, error)(scope, receive, exchange.send)
            except Exception:  # a client gets an answer, and the server continues
                logger.exception("the request failed")
                if not exchange.is_started:
                    await self._own_error(scope, internal())(scope, receive, exchange.send)
            finally:
                self.access.in_progress -= is_prediction

    def _own_error(self, scope: Scope, error: RequestError) -> Response:
        return own_error(scope, error, self.on_error, logs=self.models.logs_requests)

    def _admit(self, scope: Scope, authorization: str, is_prediction: bool) -> None:
        if scope["path"] not in HEALTH_ROUTES and not is_page(scope["path"]):
            self.access.check_token(authorization)
        if is_prediction:
            self.access.check_capacity()


class _Exchange:
    """The messages of one request, on their way between the server and the application."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, models: Models
    ) -> None:
        self._receive, self._send = receive, send
        self._request_id, self._models = request_id, models
        self._is_http1 = scope["http_version"].startswith("1")
        self._must_close = not is_short(scope["headers"])
        self.is_started = False

    async def receive(self) -> Message:
        """Receive a message, and note the end of the body."""
        message = await self._receive()
        if not message.get("more_body", False):
            self._must_close = False
        return message

    async def send(self, message: Message) -> None:
        """Send a message; the response gets the request's identifier.

        The connection is closed after a response that does not wait for the rest of a large or late
        body, and when the server stops.
        """
        if message["type"] == "http.response.start":
            self.is_started = True
            headers = [*message.get("headers", []), (b"x-request-id", self._request_id.encode())]
            is_stopping = self._models.state is State.STOPPING
            is_late = message["status"] == HTTPStatus.REQUEST_TIMEOUT
            if self._is_http1 and (self._must_close or is_late or is_stopping):
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self._send(message)


def _resolve_absolute_form(scope: Scope) -> None:
    """Reduce a target such as `http://host/ping`, which proxies receive, to its path (RFC 9112)."""
    path: str = scope["path"]
    if path.lower().startswith(("http://", "https://")):
        scope["path"] = "/" + path.split("://", 1)[1].partition("/")[2]
        scope["raw_path"] = scope["path"].encode()
