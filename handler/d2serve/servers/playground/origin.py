"""Refuse the requests of other web pages."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from d2serve.errors import RequestError
from d2serve.servers.playground.files import SECURITY_HEADERS

# Names that browsers resolve to this machine without asking a name server.
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
# Values of Sec-Fetch-Site; `none` is an address that the user has typed.
OWN_SITE = ("same-origin", "none")


class OwnOriginMiddleware:
    """ASGI middleware: 403 unless the page of this server, or no page at all, sends a request.

    The server holds credentials that no other page may use. The check of the host is against DNS
    rebinding, by which the name of an attacker's page comes to mean this machine.

    Args:
        app: the application, on loopback.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "http" and not is_own(Headers(scope=scope), scope["scheme"]):
            error = _forbidden()
            response = JSONResponse(error.body(), error.status, SECURITY_HEADERS)
            await response(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def is_own(headers: Headers, scheme: str) -> bool:
    """Return whether a request is to a name of this machine, and of no other page.

    Args:
        headers: the request's headers. The port is not checked, because a tunnel changes it.
        scheme: `http` or `https`.

    Examples:
        >>> is_own(Headers({"host": "localhost:8090", "origin": "http://localhost:8090"}), "http")
        True
        >>> is_own(Headers({"host": "localhost:8090", "origin": "https://example.org"}), "http")
        False
        >>> is_own(Headers({"host": "example.org:8090"}), "http")
        False
    """
    hosts = headers.getlist("host")
    if len(hosts) != 1 or _name_of(hosts[0]) not in LOOPBACK_NAMES:
        return False
    if any(site not in OWN_SITE for site in headers.getlist("sec-fetch-site")):
        return False
    return all(origin == f"{scheme}://{hosts[0]}" for origin in headers.getlist("origin"))


def _name_of(host: str) -> str | None:
    """The name in a Host header; None if it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
    except ValueError:
        return None
    return parts.hostname if parts.netloc == host and "@" not in host else None


def _forbidden() -> RequestError:
    return RequestError(
        403,
        "forbidden",
        "the request is for another host, or of another web page",
        "open the URL that `d2serve playground` prints, with the host 127.0.0.1 or localhost",
    )
