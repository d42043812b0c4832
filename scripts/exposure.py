"""Who can reach a server, and what keeps others out: a token and TLS."""

import ipaddress
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from scripts.errors import CommandError
from scripts.ports import LOOPBACK, Ports

# On all of the machine's addresses.
ANY = "0.0.0.0"  # noqa: S104


@dataclass(frozen=True)
class Certificate:
    """What a server proves its name with; both files PEM.

    Attributes:
        chain: the certificate, followed by those that signed it.
        key: its private RSA key, not encrypted: TorchServe reads no others.

    Raises:
        CommandError: a file cannot be read, or they do not belong together.
    """

    chain: Path
    key: Path

    def __post_init__(self) -> None:
        for file in (self.chain, self.key):
            if not file.is_file():
                raise CommandError(f"{file} does not exist; CERTIFICATE= and KEY= are PEM files")
        _require_rsa(self.key)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.chain, self.key)
        except ssl.SSLError as error:
            raise CommandError(f"{self.chain} is no certificate of {self.key}: {error}") from error


@dataclass(frozen=True)
class Exposure:
    """Where a server listens: for this machine alone, unless told otherwise.

    The management API listens on this machine alone in any case.

    Attributes:
        address: the inference API's IPv4 address.
        metrics_address: that of the metrics, which no token guards.
        certificate: makes the inference API, and metrics that others can reach, HTTPS.

    Raises:
        CommandError: an address is none of this machine's.
    """

    address: str = LOOPBACK
    metrics_address: str = LOOPBACK
    certificate: Certificate | None = None

    def __post_init__(self) -> None:
        for address in (self.address, self.metrics_address):
            _require_own(address)

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
        """Where this machine itself finds the inference API."""
        return LOOPBACK if self.address == ANY else self.address

    def as_properties(self, ports: Ports) -> dict[str, str]:
        """The lines of config.properties that say who can reach the server."""
        metrics_scheme = "http" if _is_loopback(self.metrics_address) else self.scheme
        listening = {
            "inference_address": f"{self.scheme}://{self.address}:{ports.inference}",
            "metrics_address": f"{metrics_scheme}://{self.metrics_address}:{ports.metrics}",
            "disable_token_authorization": str(not self.needs_token).lower(),
        }
        if self.certificate is None:
            return listening
        return listening | {
            "certificate_file": str(self.certificate.chain.resolve()),
            "private_key_file": str(self.certificate.key.resolve()),
        }


def _is_loopback(address: str) -> bool:
    return ipaddress.IPv4Address(address).is_loopback


def _require_own(address: str) -> None:
    try:
        ipaddress.IPv4Address(address)
        with socket.socket() as listener:
            listener.bind((address, 0))
    except ValueError:
        raise CommandError(
            f"{address!r} is not an IPv4 address; use {ANY} for all of this machine's"
        ) from None
    except OSError as error:
        raise CommandError(
            f"{address} is none of this machine's addresses ({error.strerror}); "
            f"use {ANY} for all of them"
        ) from error


def _require_rsa(file: Path) -> None:
    # Every server's start imports this module, and few have a certificate.
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise CommandError(f"{file} is no private key without a password: {error}") from error
    if not isinstance(key, RSAPrivateKey):
        raise CommandError(f"{file} is no RSA key, and TorchServe reads no others")
