"""Reject predictions for a full queue as soon as their head is parsed.

Under overload a server rejects several requests for each that it processes, on the CPUs that the
network needs. This path gives the response of `app.py`, without a task, a route or a body.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import h11
from starlette.applications import Starlette
from starlette.routing import Route

from d2serve.errors import RequestError
from d2serve.servers.asgi.body import is_short
from d2serve.servers.asgi.frame import Access
from d2serve.servers.asgi.models import VERSIONS, Models, State
from d2serve.servers.asgi.reading import headers_of, request_id_of
from d2serve.servers.asgi.responses import (
    OnError,
    RareLog,
    own_error,
    request_fields,
    to_events,
)

# Returns the events of a response, or None for a request that the application processes.
Reject = Callable[[h11.Request], Sequence[h11.Event] | None]
KEEP_ALIVE = ("", "keep-alive")


def predictions_of(names: Sequence[str], app: Starlette) -> dict[bytes, tuple[str, Route]]:
    """The targets of predictions, without a query, as a client sends them: model and route of each.

    Args:
        names: names of the models; the first is the model of a route without a name.
        app: the application with the routes.
    """
    values = [{"name": name, "version": each} for name in names for each in VERSIONS]
    targets: dict[bytes, tuple[str, Route]] = {}
    for route in app.routes:
        if isinstance(route, Route) and "POST" in (route.methods or ()):
            for value in values:
                target = quote(route.path_format.format(**value), safe="/:").encode()
                targets.setdefault(target, (value["name"], route))
    return targets


class Rejection:
    """Rejects requests that the application would surely reject with 503.

    The application decides on all that is unusual in a request.

    Args:
        models: the served models.
        access: the rules for tokens.
        targets: see `predictions_of`.
        on_error: called with every error.
    """

    def __init__(
        self,
        models: Models,
        access: Access,
        targets: Mapping[bytes, tuple[str, Route]],
        on_error: OnError,
    ) -> None:
        self._models = models
        self._access = access
        self._targets = targets
        self._on_error = on_error
        self._log = RareLog("rejected")

    def __call__(self, request: h11.Request) -> Sequence[h11.Event] | None:
        """Return the events of a 503 response; None if the application processes the request."""
        found = self._targets.get(request.target)
        if found is None or request.method != b"POST" or self._models.state is not State.READY:
            return None
        name, route = found
        try:
            self._models.get(name).check_room()
        except RequestError as error:
            return self._response(request, route, error)
        return None

    def _response(
        self, request: h11.Request, route: Route, error: RequestError
    ) -> Sequence[h11.Event] | None:
        scope: dict[str, Any] = {"type": "http", "headers": list(request.headers)}
        headers = headers_of(scope)
        if not self._is_usual(request, headers):
            return None
        request_id = request_id_of(headers)
        path = request.target.decode("ascii")
        scope |= {"path": path, "route": route, "state": {"request_id": request_id}}
        if self._models.logs_requests:
            self._log.report(error, request_fields(scope))
        response = own_error(scope, error, self._on_error, logs=False)
        return to_events(response, request_id)

    def _is_usual(self, request: h11.Request, headers: Mapping[str, str]) -> bool:
        """True if the connection stays open, no web page sends the request, and it is permitted."""
        if request.http_version != b"1.1" or "origin" in headers or not is_short(request.headers):
            return False
        if headers.get("connection", "").lower() not in KEEP_ALIVE:
            return False
        try:
            self._access.check_token(headers.get("authorization", ""))
        except RequestError:
            return False
        return True
