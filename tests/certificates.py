"""Certificates for tests."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from d2serve.servers.exposure import LOOPBACK, LOOPBACK_IPV6, Certificate

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "d2serve test")])
VALIDITY = datetime.timedelta(days=1)


def self_signed(folder: Path) -> Certificate:
    """A self-signed certificate for this machine with an RSA key."""
    return Certificate(*write(folder, rsa.generate_private_key(65537, 2048)))


def self_signed_ec(folder: Path) -> Certificate:
    """A self-signed certificate for this machine with an elliptic curve key."""
    return Certificate(*write(folder, ec.generate_private_key(ec.SECP256R1())))


def write(
    folder: Path,
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    layout: PrivateFormat = PrivateFormat.PKCS8,
) -> tuple[Path, Path]:
    """Write a self-signed certificate and its key as PEM files; return their paths."""
    now = datetime.datetime.now(datetime.timezone.utc)
    addresses = map(ipaddress.ip_address, (LOOPBACK, LOOPBACK_IPV6))
    names = x509.SubjectAlternativeName([x509.IPAddress(address) for address in addresses])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - VALIDITY)
        .not_valid_after(now + VALIDITY)
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    chain_file, key_file = folder / "certificate.pem", folder / "key.pem"
    chain_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, layout, NoEncryption()))
    return chain_file, key_file
