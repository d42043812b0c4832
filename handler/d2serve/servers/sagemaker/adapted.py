"""ASGI middleware for requests that AWS's adapter forwards.

The adapter sends each `/invocations` to `POST /`, and declares JSON where SageMaker declares
nothing.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import IO, Any, TypeAlias

from d2serve.messages import JSON_TYPE

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
ROUTE = "/invocations"
# JPEG, PNG, NPY, GIF, BMP, TIFF and WebP files: never the start of JSON.
BINARY_STARTS = (
    *(b"\xff\xd8", b"\x89PNG", b"\x93NUMPY", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF"),
)
CONTENT_TYPE, CONNECTION = b"content-type", b"connection"
START, REQUEST = "http.response.start", "http.request"


class Adapted:
    """Serve `POST /` as `/invocations`; an image or NPY file declared as JSON has no type.

    A response that comes before the end of the request, such as one for a full queue, waits for
    it: the adapter would report an error of its own if its connection were closed.

    Args:
        application: an ASGI application.
        lock: the replica's lock for the watchdog, which ends with this object.
    """

    def __init__(self, application: Application, lock: IO[bytes]) -> None:
        self.application = application
        self.lock = lock

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one connection of an ASGI server."""
        if scope["type"] != "http" or (scope["method"], scope["path"]) != ("POST", "/"):
            await self.application(scope, receive, send)
            return
        body = _Body(receive)
        translated = {**scope, "path": ROUTE, "raw_path": ROUTE.encode()}
        if (CONTENT_TYPE, JSON_TYPE.encode()) in scope["headers"] and await body.is_binary():
            kept = [(name, value) for name, value in scope["headers"] if name != CONTENT_TYPE]
            translated["headers"] = kept

        async def send_after_body(message: Message) -> None:
            if message["type"] == START:
                await body.discard_rest()
                kept = [each for each in message["headers"] if each[0].lower() != CONNECTION]
                message = {**message, "headers": kept}
            await send(message)

        await self.application(translated, body.receive, send_after_body)


class _Body:
    """The messages of a request's body."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._waiting: list[Message] = []
        self._is_complete = False

    async def receive(self) -> Message:
        """Return the next message, as an ASGI server does."""
        message = self._waiting.pop() if self._waiting else await self._receive()
        self._is_complete = message["type"] != REQUEST or not message.get("more_body", False)
        return message

    async def is_binary(self) -> bool:
        """Return whether the body starts as an image or an NPY file."""
        self._waiting.append(first := await self._receive())
        body: bytes = first.get("body", b"")
        return body.startswith(BINARY_STARTS)

    async def discard_rest(self) -> None:
        """Receive the messages that the application has not received."""
        while not self._is_complete:
            await self.receive()
