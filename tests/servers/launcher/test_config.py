import zipfile
from pathlib import Path

import pytest
import ts

from d2serve.servers.openmp import OPENMP_SETTINGS
from d2serve.servers.torchserve.launcher.config import (
    CONFIG_FILE,
    METRICS_CONFIG,
    read_properties,
    server_environment,
    server_properties,
    write_properties,
)
from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports

FRONTEND = Path(ts.__file__).parent / "frontend" / "model-server.jar"
# Java's options, which TorchServe's Python launcher reads; see tests/serving/test_server.py.
LAUNCHER_KEY = "vmargs"
PORTS = Ports(1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("text", "properties"),
    [
        ("", {}),
        ("# a=b\n\n", {}),
        ("a=b", {"a": "b"}),
        ("  a = b \nallowed_urls=file://.*=x\n", {"a": "b", "allowed_urls": "file://.*=x"}),
        ("empty=\n", {"empty": ""}),
    ],
)
def test_read_properties(tmp_path: Path, text: str, properties: dict[str, str]) -> None:
    path = tmp_path / "config.properties"
    path.write_text(text)
    assert read_properties(path) == properties


def test_written_properties_can_be_read(tmp_path: Path) -> None:
    properties = {"a": "1", "address": "http://127.0.0.1:8080", "empty": ""}
    write_properties(tmp_path / "p", properties)
    assert read_properties(tmp_path / "p") == properties


def test_only_ports_and_the_metrics_path_differ_from_the_packaged_file() -> None:
    generated, packaged = server_properties(PORTS), read_properties(CONFIG_FILE)
    changed = {key for key, value in generated.items() if packaged.get(key) != value}
    assert changed == {*PORTS.as_properties(), METRICS_CONFIG}


def test_the_metrics_file_is_found_from_any_working_folder(repo_root: Path) -> None:
    metrics = Path(server_properties(PORTS)[METRICS_CONFIG])
    assert metrics.is_absolute()
    assert metrics == repo_root / read_properties(CONFIG_FILE)[METRICS_CONFIG]
    assert metrics.is_file()


def test_the_repositorys_config_properties_is_the_packaged_file(repo_root: Path) -> None:
    assert (repo_root / "config.properties").resolve() == CONFIG_FILE.resolve()


@pytest.mark.parametrize(
    "key", [key for key in read_properties(CONFIG_FILE) if key != LAUNCHER_KEY]
)
def test_torchserve_knows_every_key(key: str) -> None:
    with zipfile.ZipFile(FRONTEND) as jar:
        constants = jar.read("org/pytorch/serve/util/ConfigManager.class")
    # A Java string constant is stored after its length, which distinguishes it from a prefix.
    assert len(key).to_bytes(2, "big") + key.encode() in constants


def test_by_default_only_this_machine_has_access() -> None:
    settings = read_properties(CONFIG_FILE)
    addresses = [value for key, value in settings.items() if key.endswith("_address")]
    assert len(addresses) == 5
    assert all(LOOPBACK in address for address in addresses)
    assert settings["enable_model_api"] == "false"
    assert settings["allowed_urls"] == "(?!)"
    assert settings["max_request_size"] == settings["max_response_size"] == str(100 * 1024**2)


def test_tokens_last_a_year_instead_of_torchserves_hour() -> None:
    assert int(read_properties(CONFIG_FILE)["token_expiration_min"]) == 365 * 24 * 60


def test_the_environment_cannot_change_what_is_served() -> None:
    environment = server_environment(
        {"PATH": "/bin", "PYTHONPATH": "/checkout", "TS_CONFIG_FILE": "/else", "TMPDIR": "/tmp"},
        Path("/home"),
        Path("/java"),
        Path("/logs"),
    )
    assert environment == {
        "PATH": "/bin",
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "10000",
        "JAVA_HOME": "/java",
        "TMPDIR": "/home",
        "TEMP": "/home",
        "LOG_LOCATION": "/logs",
        "METRICS_LOCATION": "/logs",
        "D2SERVE_KEY_FILE": "/home/key_file.json",
        "LC_ALL": "C.UTF-8",
    }


@pytest.mark.parametrize("given", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}])
def test_openmp_settings_of_the_environment_take_precedence(given: dict[str, str]) -> None:
    environment = server_environment(given, Path("/home"), Path("/java"), Path("/logs"))
    assert {name: environment[name] for name in OPENMP_SETTINGS.keys() & environment} == given
