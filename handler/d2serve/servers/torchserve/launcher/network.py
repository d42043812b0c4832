"""Network exposure of a server: addresses, tokens and TLS."""

import ipaddress
import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from d2serve.errors import CommandError
from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports, family_of

# TorchServe writes it where it runs, readable to its own user alone.
KEY_FILE = "key_file.json"
# What our own commands take a token from.
TOKEN_VARIABLE = "D2SERVE_TOKEN"  # noqa: S105


def read_token(key_file: Path, api: str) -> str | None:
    """The token of one API, `inference` or `management`; None while TorchServe is writing."""
    try:
        token: str = json.loads(key_file.read_text(encoding="utf-8"))[api]["key"]
    except (OSError, ValueError, KeyError):
        return None
    return token


def authorization(token: str | None) -> dict[str, str]:
    """The headers of a request with a token; none without."""
    return {"Authorization": f"Bearer {token}"} if token else {}


# On all of the machine's addresses: those of IPv4, and those of both kinds.
ANY = "0.0.0.0"  # noqa: S104
ANY_IPV6 = "::"
LOOPBACK_IPV6 = "::1"
TO_OURSELVES = {ANY: LOOPBACK, ANY_IPV6: LOOPBACK_IPV6}


@dataclass(frozen=True)
class Certificate:
    """What a server proves its name with; both files PEM.

    Attributes:
        chain: the certificate, followed by those that signed it.
        key: its private key, not encrypted.

    Raises:
        CommandError: a file cannot be read, or they do not belong together.
    """

    chain: Path
    key: Path

    def __post_init__(self) -> None:
        for file in (self.chain, self.key):
            if not file.is_file():
                raise CommandError(f"{file} does not exist; CERTIFICATE= and KEY= are PEM files")
        _load_key(self.key)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.chain, self.key)
        except ssl.SSLError as error:
            raise CommandError(f"{self.chain} is no certificate of {self.key}: {error}") from error


@dataclass(frozen=True)
class Exposure:
    """Where a server and its front door listen: for this machine alone, unless told otherwise.

    The management API listens on this machine alone in any case.

    Attributes:
        address: the inference API's, which is the front door's.
        metrics_address: that of the metrics, which no token guards; TorchServe itself opens it.
        certificate: makes the inference API, and metrics that others can reach, HTTPS.

    Raises:
        CommandError: an address is none of this machine's, or TorchServe cannot do what is asked.
    """

    address: str = LOOPBACK
    metrics_address: str = LOOPBACK
    certificate: Certificate | None = None

    def __post_init__(self) -> None:
        for address in (self.address, self.metrics_address):
            _require_own(address)
        if ":" in self.metrics_address:
            raise CommandError(
                f"METRICS_ADDRESS={self.metrics_address}: TorchServe, which answers there, listens "
                f"on no IPv6; use an IPv4 address, such as {ANY}"
            )
        if self.certificate and self._opens_metrics:
            _require_rsa(self.certificate.key)

    @property
    def needs_token(self) -> bool:
        """Whether requests for predictions have to carry a token: others can send some."""
        return not _is_loopback(self.address)

    @property
    def scheme(self) -> str:
        """Of the inference API."""
        return "https" if self.certificate else "http"

    @property
    def host(self) -> str:
        """Where this machine itself finds the inference API, as in a URL."""
        return in_url(TO_OURSELVES.get(self.address, self.address))

    @property
    def _opens_metrics(self) -> bool:
        return not _is_loopback(self.metrics_address)

    def as_properties(self, ports: Ports) -> dict[str, str]:
        """The lines of TorchServe's config.properties, behind the front door, that say who can
        reach what."""
        metrics_scheme = self.scheme if self._opens_metrics else "http"
        listening = {
            "metrics_address": f"{metrics_scheme}://{self.metrics_address}:{ports.metrics}",
            "disable_token_authorization": str(not self.needs_token).lower(),
        }
        if self.certificate is None or not self._opens_metrics:
            return listening
        return listening | {
            "certificate_file": str(self.certificate.chain.resolve()),
            "private_key_file": str(self.certificate.key.resolve()),
        }


def in_url(address: str) -> str:
    """An address as URLs and `host:port` have it: of IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _require_own(address: str) -> None:
    try:
        ipaddress.ip_address(address)
        with socket.socket(family_of(address)) as listener:
            listener.bind((address, 0))
    except ValueError:
        raise CommandError(
            f"{address!r} is not an IP address; use {ANY} for all of this machine's, or "
            f"{ANY_IPV6} for those of IPv6 too"
        ) from None
    except OSError as error:
        raise CommandError(
            f"{address} is none of this machine's addresses ({error.strerror}); "
            f"use {ANY} for all of them"
        ) from error


def _load_key(file: Path) -> object:
    # Every server's start imports this module, and few have a certificate.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CommandError(f"{file} is no private key without a password: {error}") from error


def _require_rsa(file: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    if not isinstance(_load_key(file), RSAPrivateKey):
        raise CommandError(
            f"{file} is no RSA key, and TorchServe, which encrypts the metrics, reads no others; "
            "leave METRICS_ADDRESS= out, or take an RSA key"
        )
