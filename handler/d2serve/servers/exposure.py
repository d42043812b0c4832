"""The addresses and certificates of servers on this machine."""

import ipaddress
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from d2serve.errors import CommandError

LOOPBACK = "127.0.0.1"
LOOPBACK_IPV6 = "::1"
# All addresses of the machine: the IPv4 ones, or those of both families.
ANY = "0.0.0.0"  # noqa: S104
ANY_IPV6 = "::"
# OpenSSL's reasons for a key that belongs to another certificate.
MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
LOOPBACK_OF = {ANY: LOOPBACK, ANY_IPV6: LOOPBACK_IPV6}


@dataclass(frozen=True)
class Certificate:
    """A server's TLS certificate and key, as PEM files.

    Attributes:
        chain: the certificate, followed by those that signed it.
        key: the certificate's private key, not encrypted.

    Raises:
        CommandError: a file cannot be read, or the key is not the certificate's.
    """

    chain: Path
    key: Path

    def __post_init__(self) -> None:
        for file in (self.chain, self.key):
            if not file.is_file():
                raise CommandError(
                    f"{file} does not exist; --certificate and --key require PEM files"
                )
        try:
            self.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        except (ssl.SSLError, ValueError) as error:
            self._explain(error)

    def load(self, context: ssl.SSLContext) -> None:
        """Load the certificate into a TLS configuration; never prompts for a password."""
        context.load_cert_chain(self.chain, self.key, _refuse_password)

    def _explain(self, error: Exception) -> None:
        if getattr(error, "reason", None) in MISMATCHES:
            raise CommandError(
                f"the certificate {self.chain} does not match the key {self.key} ({error}); "
                "use the key that the certificate was issued for"
            ) from error
        if "CERTIFICATE" not in self.chain.read_text("utf-8", "replace"):
            raise CommandError(
                f"{self.chain} is not a certificate in PEM format; give the certificate, followed "
                "by those that signed it"
            ) from error
        raise CommandError(
            f"{self.key} is not a private key without a password ({error}); "
            "use an unencrypted key in PEM format"
        ) from error


def check_address(address: str) -> None:
    """Check that a server on this machine can listen on an IP address.

    Raises:
        CommandError: the text is not an IP address, or it is not one of this machine.
    """
    try:
        ipaddress.ip_address(address)
        with socket.socket(family_of(address)) as listener:
            listener.bind((address, 0))
    except ValueError:
        raise CommandError(
            f"{address!r} is not an IP address; use {ANY} for all IPv4 addresses of this machine, "
            f"or {ANY_IPV6} for IPv4 and IPv6"
        ) from None
    except OSError as error:
        raise CommandError(
            f"{address} is not an address of this machine ({error.strerror}); "
            f"use {ANY} for all of its IPv4 addresses"
        ) from error


def is_loopback(address: str) -> bool:
    """True if only this machine can reach an IP address."""
    return ipaddress.ip_address(address).is_loopback


def family_of(address: str) -> socket.AddressFamily:
    """The address family of an IP address: IPv4 or IPv6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def url_host(address: str) -> str:
    """An IP address as in URLs and `host:port`: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


def _refuse_password() -> str:
    raise ValueError("the key is encrypted")
