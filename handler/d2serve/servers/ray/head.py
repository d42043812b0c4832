"""The limit on the size of a request's head, which Ray Serve's HTTP servers do not have."""

from starlette.types import ASGIApp, Receive, Scope, Send

from d2serve.errors import headers_too_large
from d2serve.messages import MAX_HEAD_BYTES
from d2serve.servers.asgi.reading import headers_of, request_id_of
from d2serve.servers.asgi.responses import OnError, own_error
from d2serve.servers.ray.mount import REQUEST_ID

# The spaces, the version and the line end of a request line, and the empty line after the fields.
LINE_BYTES = len("  HTTP/1.1\r\n") + len("\r\n")
FIELD_BYTES = len(": \r\n")


class HeadLimit:
    """ASGI middleware that rejects requests with a large head.

    Args:
        app: the application.
        on_error: called with each rejection.
        limit: maximum number of bytes.
    """

    def __init__(self, app: ASGIApp, on_error: OnError, limit: int = MAX_HEAD_BYTES) -> None:
        self.app = app
        self.on_error = on_error
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or head_bytes(scope) <= self.limit:
            await self.app(scope, receive, send)
            return
        request_id = request_id_of(headers_of(scope))
        scope.setdefault("state", {})["request_id"] = request_id
        response = own_error(scope, headers_too_large(self.limit), self.on_error, logs=True)
        response.headers[REQUEST_ID.decode()] = request_id
        await response(scope, receive, send)


def head_bytes(scope: Scope) -> int:
    """The size of a request's head in bytes, without the identifier that Ray adds."""
    target = scope.get("raw_path") or scope["path"].encode()
    query = scope.get("query_string", b"")
    line = len(scope["method"]) + len(target.partition(b"?")[0]) + len(query) + bool(query)
    fields = (
        len(name) + len(value) + FIELD_BYTES
        for name, value in scope["headers"]
        if name != REQUEST_ID
    )
    return LINE_BYTES + line + sum(fields)
