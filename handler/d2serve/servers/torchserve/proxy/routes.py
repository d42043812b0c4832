"""The proxy's routes: what is forwarded to TorchServe, and the documents that TorchServe lacks."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import parse_qs, quote, unquote

import h11

from d2serve.errors import bad_request, method_not_allowed, not_found, overloaded
from d2serve.messages import FORM_TYPE, media_type_of
from d2serve.outputs import open_inference_metadata as metadata
from d2serve.servers.torchserve.proxy.shared_files import ModelState
from d2serve.servers.torchserve.proxy.upstream import end_to_end

# Fields of clients with this prefix are dropped, except CLIENT_FIELDS.
OWN_FIELDS = b"x-d2serve-"
# A client's own deadline in milliseconds.
CLIENT_FIELDS = (b"x-d2serve-timeout-ms",)
# The arrival time in seconds of the machine's monotonic clock, which all processes share.
ARRIVED_HEADER = "x-d2serve-arrived"
# The number of the client's connection in the disconnect table.
CLIENT_HEADER = "x-d2serve-client"
# The query string as sent: TorchServe passes it to handlers on some routes only, and parses it.
QUERY_HEADER = "x-d2serve-query"
# Present on routes of the Open Inference Protocol, whose errors have a form of their own.
PROTOCOL_HEADER = "x-d2serve-protocol"
OPEN_INFERENCE = "open-inference"

Document: TypeAlias = dict[str, Any]
ReadModels: TypeAlias = Callable[[], Mapping[str, ModelState]]
Field: TypeAlias = tuple[bytes, bytes]
GET = ("GET", "HEAD")
POST = ("POST", "PUT")  # `curl -T` sends PUT
PING = "/ping"
LIVE = "/v2/health/live"
MODEL = "/v2/models/{name}"
VERSION = MODEL + "/versions/{version}"
ABSOLUTE = re.compile(r"https?://([^/?#]+)(.*)", re.IGNORECASE | re.DOTALL)
# In place of FORM_TYPE, which `curl -d` declares for any body, and which TorchServe decodes.
GENERIC_TYPE = b"application/octet-stream"
REPLACED = (b"content-length", b"expect", b"host")


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
        versions = [_short(version) for version in state.versions] if state else []
        if not state or (self.version and _short(self.version) not in versions):
            raise not_found()
        if not state.is_ready:
            raise overloaded("no worker of the model is ready to accept requests")
        return self.route.document(name, versions)

    def forward(
        self, request: h11.Request, models: ReadModels, own_fields: list[Field]
    ) -> h11.Request:
        """The request for TorchServe.

        Args:
            request: the client's request.
            models: returns the models that TorchServe serves, by name.
            own_fields: fields to add.
        """
        fields = [
            (name, GENERIC_TYPE if name == b"content-type" and _is_form(value) else value)
            for name, value in end_to_end(request.headers)
            if name not in REPLACED and (name in CLIENT_FIELDS or not name.startswith(OWN_FIELDS))
        ]
        fields += [(b"host", self.host), *own_fields]
        if not self.route.is_inference:
            method = request.method if request.method == b"OPTIONS" else b"GET"
            target = self.path if self.route.template in ("/", PING) else PING
            return h11.Request(method=method, target=target, headers=fields)
        if self.query:
            fields.append((QUERY_HEADER.encode(), self.query.encode()))
        if self.path.startswith("/v2/"):
            fields.append((PROTOCOL_HEADER.encode(), OPEN_INFERENCE.encode()))
        return h11.Request(
            method=request.method if request.method == b"OPTIONS" else b"POST",
            target=self._inference_path(models),
            headers=[*fields, _framing(request)],
        )

    def _inference_path(self, models: ReadModels) -> str:
        """The path at TorchServe whose handler receives the body as it is."""
        if not self.name:
            name = parse_qs(self.query).get("model_name", [""])[-1]
            return f"{self.path}?model_name={quote(name, safe='')}" if name else self.path
        path = f"/predictions/{self.name}"
        if not self.version:
            return path
        state = models().get(unquote(self.name))
        known = {_short(version): version for version in state.versions} if state else {}
        return f"{path}/{known.get(_short(self.version), self.version)}"


def is_open_inference(target: bytes) -> bool:
    """True if errors have the form of the Open Inference Protocol."""
    return re.match(rb"(https?://[^/?#]+)?/v2([/?]|$)", target) is not None


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


def _is_form(content_type: bytes) -> bool:
    return media_type_of(content_type.decode("latin-1")) == FORM_TYPE


def _leads_elsewhere(part: str) -> bool:
    """True if TorchServe, which decodes a path before it splits it, would find another route."""
    return "/" in unquote(part) or unquote(part) in (".", "..")


def _short(version: str) -> str:
    """A version as clients write it; TorchServe's are 1.0 as a rule."""
    return version.removesuffix(".0")


def _framing(request: h11.Request) -> Field:
    """The field that tells the length of the body."""
    for name, value in request.headers:
        if name in (b"content-length", b"transfer-encoding"):
            return name, value
    return b"content-length", b"0"
