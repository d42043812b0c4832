"""The proxy's routes, and the documents that TorchServe lacks."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import unquote

import h11

from d2serve.errors import bad_request, method_not_allowed, not_found, overloaded
from d2serve.outputs import open_inference_metadata as metadata
from d2serve.servers.torchserve.proxy.shared_files import ModelState

Document: TypeAlias = dict[str, Any]
GET = ("GET", "HEAD")
POST = ("POST", "PUT")  # `curl -T` sends PUT
PING = "/ping"
LIVE = "/v2/health/live"
MODEL = "/v2/models/{name}"
VERSION = MODEL + "/versions/{version}"
ABSOLUTE = re.compile(r"https?://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Route:
    """A route of clients.

    Attributes:
        template: the path, with {name} for a model and {version}.
        methods: the accepted methods.
        document: makes the response of a route that TorchServe lacks, from the model's name and
            versions.
    """

    template: str
    methods: tuple[str, ...]
    document: Callable[[str, Sequence[str]], Document] | None = None

    @property
    def is_inference(self) -> bool:
        """True if a worker receives the request."""
        return self.methods == POST

    @property
    def is_health_check(self) -> bool:
        """True if requests are accepted above the connection limit too."""
        return self.template in (PING, LIVE, "/v2/health/ready")

    def match(self, path: str) -> "re.Match[str] | None":
        """Match a path without its query string."""
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/:?#]+)", self.template)
        return re.fullmatch(pattern, path)


ROUTES = (
    Route("/", ("OPTIONS",)),  # TorchServe's description of its API
    Route(PING, GET),
    Route("/invocations", POST),
    Route("/models/{name}/invoke", POST),
    Route("/predictions/{name}", POST),
    Route("/predictions/{name}/{version}", POST),
    Route("/v1/models/{name}:predict", POST),
    Route(f"{MODEL}/infer", POST),
    Route(f"{VERSION}/infer", POST),
    Route("/v1/models/{name}", GET, lambda name, _: metadata.v1_model_status(name)),
    Route("/v2", GET, lambda *_: metadata.server_metadata()),
    Route(LIVE, GET, lambda *_: metadata.live()),
    Route("/v2/health/ready", GET, lambda *_: metadata.ready()),
    *(Route(model, GET, metadata.model_metadata) for model in (MODEL, VERSION)),
    *(
        Route(f"{model}/ready", GET, lambda name, _: metadata.model_ready(name))
        for model in (MODEL, VERSION)
    ),
    *(
        Route(f"{model}/config", GET, lambda name, _: metadata.model_config(name))
        for model in (MODEL, VERSION)
    ),
)


@dataclass(frozen=True)
class Destination:
    """A request's route and what its target contains.

    Attributes:
        route: the route.
        path: with its percent escapes.
        query: the query string as sent, without the question mark.
        host: the value of the field Host.
        name: the model; empty if the path names none.
        version: its version; empty if the path names none.
    """

    route: Route
    path: str
    query: str
    host: bytes
    name: str = ""
    version: str = ""

    @classmethod
    def of(cls, request: h11.Request) -> "Destination":
        """Find the route of a request (RFC 9112, section 3.2).

        Raises:
            RequestError: 400 for a target that is not a path or URL, and for an upgrade to another
                protocol; 404 or 405.
        """
        method, target = request.method.decode("ascii"), request.target.decode("ascii")
        fields = dict(request.headers)
        host = fields.get(b"host", b"localhost")
        if absolute := ABSOLUTE.fullmatch(target):
            host, target = absolute[1].encode("ascii"), absolute[2]
            target = target if target.startswith("/") else f"/{target}"
        if method == "CONNECT":
            raise method_not_allowed(*GET, *POST)
        # Clients that offer HTTP/2 in this way continue with HTTP/1.1 (RFC 9110, section 7.8).
        if fields.get(b"upgrade", b"h2c").lower() != b"h2c":
            raise bad_request(
                "the request upgrades to another protocol", "omit the headers Upgrade, Connection"
            )
        path, _, query = ("/" if (method, target) == ("OPTIONS", "*") else target).partition("?")
        if not path.startswith("/"):
            raise bad_request("the request target is not a path", "send one such as /invocations")
        route, match = _find(method, path)
        return cls(route, path, query, host, **match.groupdict())

    def document(self, models: Mapping[str, ModelState]) -> Document:
        """The response of a route that TorchServe lacks.

        Raises:
            RequestError: 404 for an unknown model or version, 503 for a model that is not ready.
        """
        assert self.route.document
        if not self.name:
            return self.route.document("", ())
        name = unquote(self.name)
        state = models.get(name)
        versions = [short_version(version) for version in state.versions] if state else []
        if not state or (self.version and short_version(self.version) not in versions):
            raise not_found()
        if not state.is_ready:
            raise overloaded("no worker of the model is ready to accept requests")
        return self.route.document(name, versions)


def path_of(target: str) -> str:
    """The path of a request target, which may be a URL (RFC 9112, section 3.2.2).

    Examples:
        >>> path_of("/ping?a=b"), path_of("http://example.org/v2"), path_of("http://example.org")
        ('/ping', '/v2', '/')
    """
    absolute = ABSOLUTE.fullmatch(target)
    path = (absolute[2] if absolute else target).partition("?")[0]
    return path or "/"


def _find(method: str, path: str) -> "tuple[Route, re.Match[str]]":
    for route in ROUTES:
        match = route.match(path)
        if not match or any(map(_leads_elsewhere, match.groups())):
            continue
        if method in (*route.methods, "OPTIONS"):
            return route, match
        if route.template != "/":
            raise method_not_allowed(*route.methods)
    raise not_found()


def _leads_elsewhere(part: str) -> bool:
    """True if TorchServe, which decodes a path before it splits it, would find another route."""
    return "/" in unquote(part) or unquote(part) in (".", "..")


def short_version(version: str) -> str:
    """A version as clients write it; TorchServe's are 1.0 as a rule."""
    return version.removesuffix(".0")
