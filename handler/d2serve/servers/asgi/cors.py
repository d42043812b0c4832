"""Respond to the preflight requests of browsers, and permit responses to web pages."""

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from d2serve.errors import RequestError
from d2serve.servers.asgi.reading import headers_of, request_id_of
from d2serve.servers.asgi.responses import to_response
from d2serve.servers.cors import Cors


class CorsMiddleware:
    """ASGI middleware around all others, so that preflight requests need no token.

    Args:
        app: the application.
        cors: the permitted origins.
    """

    def __init__(self, app: ASGIApp, cors: Cors) -> None:
        self.app = app
        self.cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = headers_of(scope)
        permission = self.cors.headers(headers.get("origin"))

        async def send_permission(message: Message) -> None:
            if message["type"] == "http.response.start":
                fields = [(name.encode(), value.encode()) for name, value in permission.items()]
                message = {**message, "headers": [*message.get("headers", []), *fields]}
            await send(message)

        try:
            preflight = self.cors.preflight(scope["method"], headers)
        except RequestError as error:
            refusal = to_response(error)
            refusal.headers["x-request-id"] = request_id_of(headers)
            await refusal(scope, receive, send_permission)
            return
        if preflight is None:
            await self.app(scope, receive, send_permission)
        else:
            await Response(headers=preflight)(scope, receive, send)
