"""Network exposure of a server: addresses, tokens and TLS."""

import json
from dataclasses import dataclass
from pathlib import Path

from d2serve.errors import CommandError
from d2serve.servers.cors import Cors
from d2serve.servers.exposure import (
    ANY,
    LOOPBACK,
    LOOPBACK_OF,
    Certificate,
    check_address,
    is_loopback,
    url_host,
)
from d2serve.servers.torchserve.launcher import missing_package
from d2serve.servers.torchserve.launcher.ports import Ports

# TorchServe writes its tokens to this file in its working folder, readable only to its user.
KEY_FILE = "key_file.json"
# The variable from which the command line client reads a token.
TOKEN_VARIABLE = "D2SERVE_TOKEN"  # noqa: S105


@dataclass(frozen=True)
class Exposure:
    """The addresses that a server listens on; by default only this machine can reach it.

    The management API is always limited to this machine.

    Attributes:
        address: IP address of the inference API, on which the proxy listens.
        metrics_address: IP address of the metrics API, on which TorchServe itself listens; it never
            requires a token.
        certificate: enables HTTPS on the inference API, and on metrics that other machines reach.
        cors_origins: origins whose web pages may use the inference API, as in `Cors`.

    Raises:
        CommandError: an address does not belong to this machine, TorchServe does not support the
            combination, or an origin is not valid.
    """

    address: str = LOOPBACK
    metrics_address: str = LOOPBACK
    certificate: Certificate | None = None
    cors_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        Cors.of(self.cors_origins)
        for address in (self.address, self.metrics_address):
            check_address(address)
        if ":" in self.metrics_address:
            raise CommandError(
                f"metrics address {self.metrics_address} is an IPv6 address, which TorchServe's "
                f"metrics API does not support; use an IPv4 address, such as {ANY}"
            )
        if self.certificate and self._exposes_metrics:
            _require_rsa(self.certificate.key)

    @property
    def needs_token(self) -> bool:
        """True if inference requests require a token, because other machines can send them."""
        return not is_loopback(self.address)

    @property
    def scheme(self) -> str:
        """The URL scheme of the inference API."""
        return "https" if self.certificate else "http"

    @property
    def host(self) -> str:
        """The host in a URL by which this machine reaches the inference API."""
        return url_host(LOOPBACK_OF.get(self.address, self.address))

    @property
    def _exposes_metrics(self) -> bool:
        return not is_loopback(self.metrics_address)

    def as_properties(self, ports: Ports) -> dict[str, str]:
        """Entries of config.properties for TorchServe behind the proxy."""
        metrics_scheme = self.scheme if self._exposes_metrics else "http"
        properties = {
            "metrics_address": f"{metrics_scheme}://{self.metrics_address}:{ports.metrics}",
            "disable_token_authorization": str(not self.needs_token).lower(),
        }
        if self.certificate is None or not self._exposes_metrics:
            return properties
        return properties | {
            "certificate_file": str(self.certificate.chain.resolve()),
            "private_key_file": str(self.certificate.key.resolve()),
        }


def read_token(key_file: Path, api: str) -> str | None:
    """Read the token of an API, `inference` or `management`; None before TorchServe writes it."""
    try:
        token: str = json.loads(key_file.read_text(encoding="utf-8"))[api]["key"]
    except (OSError, ValueError, KeyError):
        return None
    return token


def authorization(token: str | None) -> dict[str, str]:
    """The request headers for a token; empty without one."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def _load_private_key(file: Path) -> object:
    # Imported here because every server start imports this module, and few servers use TLS.
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ModuleNotFoundError as error:
        raise missing_package("cryptography") from error

    try:
        return load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CommandError(
            f"{file} is not a private key without a password ({error}); "
            "use an unencrypted key in PEM format"
        ) from error


def _require_rsa(file: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    if not isinstance(_load_private_key(file), RSAPrivateKey):
        raise CommandError(
            f"{file} is not an RSA key, the only kind that TorchServe's metrics API supports; "
            "omit --metrics-address or use an RSA key"
        )
