"""The configuration that the supervisor passes to the server process."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from d2serve.servers.exposure import LOOPBACK, LOOPBACK_OF, Certificate, is_loopback, url_host

# The token of clients, from an operator or from `d2serve serve`.
TOKEN_VARIABLE = "D2SERVE_SERVER_TOKEN"  # noqa: S105
DEFAULT_FORWARD_TIMEOUT_S = 120.0
# New connections that wait until the server accepts them.
BACKLOG = 2048
# Of the supervisor and of the server process.
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass(frozen=True)
class ServerConfig:
    """The configuration of one server.

    Attributes:
        folders: the unpacked archives by model name; the first is the model of `/invocations`.
        address: IP address to listen on.
        port: TCP port.
        chain: PEM file of the TLS certificate; empty for plain HTTP.
        key: PEM file of its private key.
        forwarded_allow_ips: addresses of reverse proxies whose `X-Forwarded-*` headers count, as
            uvicorn defines them.
        cors_origins: origins whose web pages may send requests.
        forward_timeout_s: the process ends when a forward pass takes longer, in seconds.
        grpc_port: port of the gRPC API; None for none.
        playground: whether `GET /` is the playground page.
    """

    folders: dict[str, str]
    address: str = LOOPBACK
    port: int = 8080
    chain: str = ""
    key: str = ""
    forwarded_allow_ips: str = LOOPBACK
    cors_origins: tuple[str, ...] = ()
    forward_timeout_s: float = DEFAULT_FORWARD_TIMEOUT_S
    grpc_port: int | None = None
    playground: bool = True

    @property
    def certificate(self) -> Certificate | None:
        """The certificate; None for plain HTTP."""
        return Certificate(Path(self.chain), Path(self.key)) if self.chain else None

    @property
    def needs_token(self) -> bool:
        """True if requests need a token, because other machines can send them."""
        return not is_loopback(self.address)

    @property
    def url(self) -> str:
        """Base URL, from this machine."""
        host = url_host(LOOPBACK_OF.get(self.address, self.address))
        return f"{'https' if self.chain else 'http'}://{host}:{self.port}"

    def to_json(self) -> str:
        """The configuration as an argument of a command."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ServerConfig":
        """The configuration from an argument of a command."""
        values = json.loads(text)
        return cls(**{**values, "cors_origins": tuple(values["cors_origins"])})
