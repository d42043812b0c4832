import json
import re
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from d2serve.cli.main import invoke
from d2serve.errors import CommandError
from d2serve.servers.exposure import ANY, ANY_IPV6, Certificate, url_host
from d2serve.servers.torchserve.launcher.config import proxy_environment, server_properties
from d2serve.servers.torchserve.launcher.network import Exposure, authorization, read_token
from d2serve.servers.torchserve.launcher.ports import Ports
from tests.certificates import self_signed, write

PORTS = Ports(1, 2, 3, 4, 5)


def test_by_default_only_this_machine_has_access_and_needs_no_token() -> None:
    exposure = Exposure()
    assert not exposure.needs_token
    assert exposure.as_properties(PORTS) == {
        "metrics_address": "http://127.0.0.1:3",
        "disable_token_authorization": "true",
    }


def test_web_pages_of_other_origins_are_passed_to_the_proxy() -> None:
    exposure = Exposure(cors_origins=("https://example.org", "http://localhost:3000"))
    environment = proxy_environment(PORTS, PORTS, exposure)
    assert environment["D2SERVE_CORS_ORIGINS"] == "https://example.org,http://localhost:3000"
    assert not proxy_environment(PORTS, PORTS, Exposure())["D2SERVE_CORS_ORIGINS"]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1"])
def test_loopback_needs_no_token(address: str) -> None:
    properties = server_properties(PORTS, Exposure(address))
    assert properties["disable_token_authorization"] == "true"
    assert public_address(Exposure(address)) == f"{url_host(address)}:1"


@pytest.mark.parametrize("address", [ANY, ANY_IPV6])
def test_other_machines_need_a_token_and_reach_only_the_proxy(address: str) -> None:
    properties = server_properties(PORTS, Exposure(address))
    assert properties["disable_token_authorization"] == "false"
    addresses = {name: text for name, text in properties.items() if name.endswith("_address")}
    assert addresses == {
        "inference_address": "http://127.0.0.1:1",
        "management_address": "http://127.0.0.1:2",
        "metrics_address": "http://127.0.0.1:3",
        "grpc_inference_address": "127.0.0.1",
        "grpc_management_address": "127.0.0.1",
    }
    assert public_address(Exposure(address)) == f"{url_host(address)}:1"


def public_address(exposure: Exposure) -> str:
    """The address that the proxy listens on."""
    return proxy_environment(PORTS, PORTS, exposure)["D2SERVE_PUBLIC_ADDRESS"]


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        (ANY, "127.0.0.1"),
        ("::1", "[::1]"),
        (ANY_IPV6, "[::1]"),
    ],
)
def test_this_machine_reaches_the_server_at_its_host(address: str, host: str) -> None:
    assert Exposure(address).host == host


def test_metrics_can_be_exposed() -> None:
    properties = server_properties(PORTS, Exposure(metrics_address=ANY))
    assert properties["metrics_address"] == f"http://{ANY}:3"
    assert properties["inference_address"] == "http://127.0.0.1:1"


def test_a_certificate_enables_https_for_exposed_apis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    self_signed(tmp_path)
    monkeypatch.chdir(tmp_path)
    certificate = Certificate(Path("certificate.pem"), Path("key.pem"))
    # TorchServe and its workers run in other folders.
    chain, key = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")
    inference = Exposure(ANY, certificate=certificate)
    environment = proxy_environment(PORTS, PORTS, inference)
    assert environment["D2SERVE_CERTIFICATE"] == chain
    assert environment["D2SERVE_CERTIFICATE_KEY"] == key
    properties = server_properties(PORTS, inference)
    assert [text for text in properties.values() if "https" in text or "pem" in text] == []
    both = Exposure(ANY, ANY, certificate).as_properties(PORTS)
    assert both["metrics_address"] == f"https://{ANY}:3"
    assert (both["certificate_file"], both["private_key_file"]) == (chain, key)


@pytest.mark.parametrize("address", ["", "localhost", "[::1]", "0.0.0.0:8080", "http://0.0.0.0"])
def test_an_invalid_address_is_an_error(address: str) -> None:
    with pytest.raises(CommandError, match=rf"'{re.escape(address)}' is not an IP address"):
        Exposure(address)


@pytest.mark.parametrize("address", ["::1", "::"])
def test_metrics_support_only_ipv4(address: str) -> None:
    with pytest.raises(CommandError, match=f"metrics address {address} is .* use an IPv4 address"):
        Exposure(metrics_address=address)


@pytest.mark.parametrize(
    "addresses", [("192.0.2.1", ANY), (ANY, "192.0.2.1"), ("2001:db8::1", ANY)]
)
def test_an_address_of_another_machine_is_an_error(addresses: tuple[str, str]) -> None:
    with pytest.raises(
        CommandError, match=r"(192\.0\.2|2001:db8:).1 is not an address of this machine"
    ):
        Exposure(*addresses)


def test_exposed_metrics_require_an_rsa_key(tmp_path: Path) -> None:
    certificate = Certificate(*write(tmp_path, ec.generate_private_key(ec.SECP256R1())))
    assert Exposure(ANY, certificate=certificate).scheme == "https"
    with pytest.raises(
        CommandError, match=r"key\.pem is not an RSA key, the only kind that TorchServe"
    ):
        Exposure(ANY, ANY, certificate)


def test_a_key_with_a_password_is_an_error(tmp_path: Path) -> None:
    good = self_signed(tmp_path)
    key = load_pem_private_key(good.key.read_bytes(), None)
    encryption = BestAvailableEncryption(b"secret")
    good.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    with pytest.raises(CommandError, match=r"key\.pem is not a private key without a pass"):
        Certificate(good.chain, good.key)


def test_a_key_of_another_certificate_is_an_error(tmp_path: Path) -> None:
    one, other = self_signed(tmp_path / "one"), self_signed(tmp_path / "other")
    with pytest.raises(CommandError, match=r"certificate\.pem does not match the key .*key\.pem"):
        Certificate(one.chain, other.key)


def test_keys_of_both_layouts_are_accepted(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    for layout in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        Certificate(*write(tmp_path, key, layout=layout))


def test_a_missing_certificate_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"absent\.pem does not exist"):
        Certificate(tmp_path / "absent.pem", tmp_path / "absent.pem")


@pytest.mark.parametrize("given", ["--certificate", "--key"])
def test_a_certificate_needs_its_key(given: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="belong together"):
        invoke(["serve", given, str(tmp_path)])


def test_a_token_is_read_once_torchserve_has_written_it(tmp_path: Path) -> None:
    file = tmp_path / "key_file.json"
    assert read_token(file, "inference") is None
    file.write_text('{"inference"')
    assert read_token(file, "inference") is None
    file.write_text(json.dumps({"inference": {"key": "abc"}, "management": {"key": "def"}}))
    assert read_token(file, "inference") == "abc"
    assert read_token(file, "management") == "def"


def test_a_token_becomes_a_header() -> None:
    assert authorization("abc") == {"Authorization": "Bearer abc"}
    assert authorization(None) == authorization("") == {}


def test_the_error_without_cryptography_names_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(CommandError, match=r'cryptography, .* pip install "d2serve\[torchserve\]"'):
        Exposure(ANY, ANY, Certificate(*files))
