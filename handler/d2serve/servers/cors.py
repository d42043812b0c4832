"""Cross-origin resource sharing: the web pages whose scripts may use a server."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from d2serve.errors import CommandError, RequestError, bad_request
from d2serve.messages import BINARY_HEADER

ALL = "*"
# Of pages without an address of their own, such as local files.
NO_ORIGIN = "null"
METHODS = ("GET", "POST", "PUT")
EXPOSED_HEADERS = ("Server-Timing", "X-Input-Range", "X-Request-Id", "Retry-After", BINARY_HEADER)
# Time in seconds for which a browser need not repeat a preflight request.
MAX_AGE_S = 600
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[^/?#@\s,:\[\]*]+)(:\d{1,5})?")
HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, \t-]*")
# Browsers omit the default port of a scheme.
DEFAULT_PORTS = (("https://", ":443"), ("http://", ":80"))


@dataclass(frozen=True)
class Cors:
    """The origins whose pages may use a server, and the headers that permit it to browsers.

    Attributes:
        origins: as browsers send them, such as `https://example.org`; `*` for all.

    Examples:
        >>> cors = Cors.of(["https://Example.org:443"])
        >>> cors.origins
        ('https://example.org',)
        >>> cors.headers("https://example.org")["access-control-allow-origin"]
        'https://example.org'
    """

    origins: tuple[str, ...] = ()

    @classmethod
    def of(cls, origins: Iterable[str]) -> "Cors":
        """Check and normalize the origins of an operator.

        Raises:
            CommandError: one is not an origin.
        """
        return cls(tuple(_checked(origin) for origin in origins))

    def preflight(self, method: str, headers: Mapping[str, str]) -> dict[str, str] | None:
        """The headers of the response to a preflight request; None for another request.

        Args:
            method: the method.
            headers: with lower-case names.

        Raises:
            RequestError: 400, the origin or the method is not permitted.
        """
        wanted = headers.get("access-control-request-method")
        if not self.origins or method != "OPTIONS" or "origin" not in headers or wanted is None:
            return None
        permission = self.headers(headers["origin"])
        if "access-control-allow-origin" not in permission:
            raise _not_permitted()
        if wanted not in METHODS:
            raise bad_request(
                "web pages cannot use this method", f"the methods are {', '.join(METHODS)}"
            )
        names = headers.get("access-control-request-headers", "")
        if names and HEADER_NAMES.fullmatch(names):
            permission["access-control-allow-headers"] = names
        permission["access-control-allow-methods"] = ", ".join(METHODS)
        permission["access-control-max-age"] = str(MAX_AGE_S)
        return permission

    def headers(self, origin: str | None) -> dict[str, str]:
        """The headers of a response to a request of this origin; None is that of no web page."""
        if not self.origins:
            return {}
        vary = {} if ALL in self.origins else {"vary": "Origin"}
        if origin is None or not (ALL in self.origins or origin in self.origins):
            return vary
        return {
            "access-control-allow-origin": ALL if ALL in self.origins else origin,
            "access-control-expose-headers": ", ".join(EXPOSED_HEADERS),
            **vary,
        }


def _checked(origin: str) -> str:
    text = origin.strip().lower()
    for scheme, port in DEFAULT_PORTS:
        if text.startswith(scheme):
            text = text.removesuffix(port)
    if text not in (ALL, NO_ORIGIN) and not ORIGIN.fullmatch(text):
        raise CommandError(
            f"{origin!r} is not an origin; use the scheme and the host of the web page, such as "
            "https://example.org or http://localhost:3000, or * for all"
        )
    return text


def _not_permitted() -> RequestError:
    return bad_request(
        "web pages of this origin cannot use this server",
        "add the origin to the server's option --cors-origin",
    )
