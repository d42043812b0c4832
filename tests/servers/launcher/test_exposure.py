import json
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from d2serve.cli import serve
from d2serve.errors import CommandError
from d2serve.servers.torchserve.launcher.config import (
    CONFIG,
    door_environment,
    read_properties,
    server_properties,
)
from d2serve.servers.torchserve.launcher.network import (
    ANY,
    ANY_IPV6,
    Certificate,
    Exposure,
    authorization,
    in_url,
    read_token,
)
from d2serve.servers.torchserve.launcher.ports import Ports
from tests.certificates import self_signed, write

PORTS = Ports(1, 2, 3, 4, 5)


def test_by_default_this_machine_alone_is_let_in_and_needs_no_token() -> None:
    exposure = Exposure()
    assert not exposure.needs_token
    assert exposure.as_properties(PORTS) == {
        "metrics_address": "http://127.0.0.1:3",
        "disable_token_authorization": "true",
    }


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1"])
def test_loopback_needs_no_token(address: str) -> None:
    properties = server_properties(PORTS, Exposure(address))
    assert properties["disable_token_authorization"] == "true"
    assert door(Exposure(address)) == f"{in_url(address)}:1"


@pytest.mark.parametrize("address", [ANY, ANY_IPV6])
def test_others_need_a_token_and_reach_the_front_door_alone(address: str) -> None:
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
    assert door(Exposure(address)) == f"{in_url(address)}:1"


def door(exposure: Exposure) -> str:
    """Where the front door is told to listen."""
    return door_environment(PORTS, PORTS, exposure)["D2SERVE_PUBLIC_ADDRESS"]


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        (ANY, "127.0.0.1"),
        ("::1", "[::1]"),
        (ANY_IPV6, "[::1]"),
    ],
)
def test_this_machine_finds_it(address: str, host: str) -> None:
    assert Exposure(address).host == host


def test_metrics_are_opened_where_asked_for() -> None:
    properties = server_properties(PORTS, Exposure(metrics_address=ANY))
    assert properties["metrics_address"] == f"http://{ANY}:3"
    assert properties["inference_address"] == "http://127.0.0.1:1"


def test_a_certificate_makes_https_of_what_others_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    self_signed(tmp_path)
    monkeypatch.chdir(tmp_path)
    certificate = Certificate(Path("certificate.pem"), Path("key.pem"))
    # Workers and TorchServe run in other folders.
    chain, key = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")
    alone = Exposure(ANY, certificate=certificate)
    environment = door_environment(PORTS, PORTS, alone)
    assert environment["D2SERVE_CERTIFICATE"] == chain
    assert environment["D2SERVE_CERTIFICATE_KEY"] == key
    properties = server_properties(PORTS, alone)
    assert [text for text in properties.values() if "https" in text or "pem" in text] == []
    both = Exposure(ANY, ANY, certificate).as_properties(PORTS)
    assert both["metrics_address"] == f"https://{ANY}:3"
    assert (both["certificate_file"], both["private_key_file"]) == (chain, key)


@pytest.mark.parametrize("address", ["", "localhost", "[::1]", "0.0.0.0:8080", "http://0.0.0.0"])
def test_what_is_no_address_is_named(address: str) -> None:
    with pytest.raises(CommandError, match=rf"'{re.escape(address)}' is not an IP address"):
        Exposure(address)


@pytest.mark.parametrize("address", ["::1", "::"])
def test_metrics_are_on_ipv4_alone(address: str) -> None:
    with pytest.raises(CommandError, match=f"METRICS_ADDRESS={address}: .* use an IPv4 address"):
        Exposure(metrics_address=address)


@pytest.mark.parametrize(
    "addresses", [("192.0.2.1", ANY), (ANY, "192.0.2.1"), ("2001:db8::1", ANY)]
)
def test_an_address_of_another_machine_is_named(addresses: tuple[str, str]) -> None:
    with pytest.raises(
        CommandError, match=r"(192\.0\.2|2001:db8:).1 is none of this machine's addresses"
    ):
        Exposure(*addresses)


def test_keys_that_torchserve_cannot_read_are_named_where_it_has_to(tmp_path: Path) -> None:
    certificate = Certificate(*write(tmp_path, ec.generate_private_key(ec.SECP256R1())))
    assert Exposure(ANY, certificate=certificate).scheme == "https"
    with pytest.raises(CommandError, match=r"key\.pem is no RSA key, and TorchServe"):
        Exposure(ANY, ANY, certificate)


def test_a_key_with_a_password_is_named(tmp_path: Path) -> None:
    good = self_signed(tmp_path)
    key = load_pem_private_key(good.key.read_bytes(), None)
    encryption = BestAvailableEncryption(b"secret")
    good.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    with pytest.raises(CommandError, match=r"key\.pem is no private key without a pass"):
        Certificate(good.chain, good.key)


def test_a_key_of_another_certificate_is_named(tmp_path: Path) -> None:
    one, other = self_signed(tmp_path / "one"), self_signed(tmp_path / "other")
    with pytest.raises(CommandError, match=r"certificate\.pem is no certificate of .*key\.pem"):
        Certificate(one.chain, other.key)


def test_keys_of_both_layouts_are_taken(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    for layout in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        Certificate(*write(tmp_path, key, layout=layout))


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"absent\.pem does not exist"):
        Certificate(tmp_path / "absent.pem", tmp_path / "absent.pem")


@pytest.mark.parametrize("given", ["--certificate", "--key"])
def test_a_certificate_needs_its_key(given: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="belong together"):
        serve.main([given, str(tmp_path)])


def test_the_token_is_read_once_it_is_there(tmp_path: Path) -> None:
    file = tmp_path / "key_file.json"
    assert read_token(file, "inference") is None
    file.write_text('{"inference"')
    assert read_token(file, "inference") is None
    file.write_text(json.dumps({"inference": {"key": "abc"}, "management": {"key": "def"}}))
    assert read_token(file, "inference") == "abc"
    assert read_token(file, "management") == "def"


def test_a_token_is_a_header() -> None:
    assert authorization("abc") == {"Authorization": "Bearer abc"}
    assert authorization(None) == authorization("") == {}


def test_tokens_outlast_the_hour_that_torchserve_gives_them() -> None:
    assert int(read_properties(CONFIG)["token_expiration_min"]) == 365 * 24 * 60
