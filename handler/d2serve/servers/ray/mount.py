"""The ASGI application below the route prefix of a Ray Serve application."""

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = b"x-request-id"


class Mounted:
    """ASGI middleware that hides from the application what Ray Serve adds to requests.

    Ray passes on paths with the route prefix. It also identifies each request by a header that it
    adds to the response as well, so that the application's own header would be a second one.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] in ("GET", "HEAD") and scope["path"] == scope.get("root_path"):
            # URLs in the page are relative to the prefix.
            await RedirectResponse(_last_segment(scope["path"]) + "/")(scope, receive, send)
            return
        is_identified = any(name == REQUEST_ID for name, _ in scope["headers"])

        async def send_once(message: Message) -> None:
            if message["type"] == "http.response.start" and is_identified:
                headers = [each for each in message["headers"] if each[0].lower() != REQUEST_ID]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(_below_prefix(scope), receive, send_once)


def _last_segment(path: str) -> str:
    return path.rpartition("/")[2]


def _below_prefix(scope: Scope) -> Scope:
    prefix: str = scope.get("root_path", "")
    path: str = scope["path"]
    if not prefix or not path.startswith(prefix):
        return scope
    path = path[len(prefix) :] or "/"
    return {**scope, "root_path": "", "path": path, "raw_path": path.encode()}
