import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from scripts import serve
from scripts.errors import CommandError
from scripts.exposure import ANY, Certificate, Exposure
from scripts.ports import Ports
from scripts.properties import read_properties
from scripts.tokens import authorization, read_token
from scripts.torchserve import CONFIG, server_properties
from tests.certificates import self_signed, write

PORTS = Ports(1, 2, 3, 4, 5)


def test_by_default_this_machine_alone_is_let_in_and_needs_no_token() -> None:
    exposure = Exposure()
    assert not exposure.needs_token
    assert exposure.as_properties(PORTS) == {
        "inference_address": "http://127.0.0.1:1",
        "metrics_address": "http://127.0.0.1:3",
        "disable_token_authorization": "true",
    }


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_loopback_needs_no_token(address: str) -> None:
    properties = server_properties(PORTS, Exposure(address))
    assert properties["disable_token_authorization"] == "true"
    assert properties["inference_address"] == f"http://{address}:1"


def test_others_need_a_token_and_reach_predictions_alone() -> None:
    properties = server_properties(PORTS, Exposure(ANY))
    assert properties["disable_token_authorization"] == "false"
    addresses = {name: text for name, text in properties.items() if name.endswith("_address")}
    assert [name for name, text in addresses.items() if ANY in text] == ["inference_address"]
    assert addresses["management_address"] == "http://127.0.0.1:2"
    assert addresses["metrics_address"] == "http://127.0.0.1:3"


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
    properties = server_properties(PORTS, Exposure(ANY, certificate=certificate))
    assert properties["inference_address"] == f"https://{ANY}:1"
    assert properties["management_address"] == "http://127.0.0.1:2"
    assert properties["metrics_address"] == "http://127.0.0.1:3"
    # TorchServe runs in another folder.
    assert properties["certificate_file"] == str(tmp_path / "certificate.pem")
    assert properties["private_key_file"] == str(tmp_path / "key.pem")
    both = Exposure(ANY, ANY, certificate).as_properties(PORTS)
    assert both["metrics_address"] == f"https://{ANY}:3"


@pytest.mark.parametrize("address", ["", "localhost", "::1", "0.0.0.0:8080", "http://0.0.0.0"])
def test_what_is_no_address_is_named(address: str) -> None:
    with pytest.raises(CommandError, match=rf"'{address}' is not an IPv4 address"):
        Exposure(address)


@pytest.mark.parametrize("addresses", [("192.0.2.1", ANY), (ANY, "192.0.2.1")])
def test_an_address_of_another_machine_is_named(addresses: tuple[str, str]) -> None:
    with pytest.raises(CommandError, match=r"192\.0\.2\.1 is none of this machine's addresses"):
        Exposure(*addresses)


def test_keys_that_torchserve_cannot_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"key\.pem is no RSA key"):
        Certificate(*write(tmp_path, ec.generate_private_key(ec.SECP256R1())))


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
