import zipfile
from pathlib import Path

import pytest
import ts

from d2serve.servers.torchserve.launcher.config import (
    CONFIG,
    METRICS_CONFIG,
    WAITING_THREADS,
    read_properties,
    server_environment,
    server_properties,
)
from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.launcher.server import ServerError, running_server

FRONTEND = Path(ts.__file__).parent / "frontend" / "model-server.jar"
# Java's own options, which are there before TorchServe is; see tests/serving/test_server.py.
READ_BY_ITS_LAUNCHER = "vmargs"
PORTS = Ports(1, 2, 3, 4, 5)


def test_only_the_ports_differ_from_the_repositorys_settings() -> None:
    generated, committed = server_properties(PORTS), read_properties(CONFIG)
    changed = {key for key, value in generated.items() if committed.get(key) != value}
    assert changed == {*PORTS.as_properties(), METRICS_CONFIG}


def test_the_metrics_are_found_from_whatever_folder_the_server_runs_in() -> None:
    metrics = Path(server_properties(PORTS)[METRICS_CONFIG])
    assert metrics.is_absolute()
    assert metrics == CONFIG.parent / read_properties(CONFIG)[METRICS_CONFIG]
    assert metrics.is_file()


@pytest.mark.parametrize(
    "key", [key for key in read_properties(CONFIG) if key != READ_BY_ITS_LAUNCHER]
)
def test_torchserve_knows_every_key(key: str) -> None:
    with zipfile.ZipFile(FRONTEND) as jar:
        constants = jar.read("org/pytorch/serve/util/ConfigManager.class")
    # A Java string constant is stored with its length before it, which tells it from a prefix.
    assert len(key).to_bytes(2, "big") + key.encode() in constants


def test_the_committed_settings_shut_others_out() -> None:
    settings = read_properties(CONFIG)
    addresses = [value for key, value in settings.items() if key.endswith("_address")]
    assert len(addresses) == 5
    assert all(LOOPBACK in address for address in addresses)
    assert settings["enable_model_api"] == "false"
    assert settings["allowed_urls"] == "(?!)"
    assert settings["max_request_size"] == settings["max_response_size"] == str(100 * 1024**2)


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
    }


@pytest.mark.parametrize("given", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}])
def test_how_threads_wait_is_ours_to_say_where_nobody_else_does(given: dict[str, str]) -> None:
    environment = server_environment(given, Path("/home"), Path("/java"), Path("/logs"))
    assert {name: environment[name] for name in WAITING_THREADS.keys() & environment} == given


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match=r"absent\.mar does not exist; `make archive`"),
        running_server(tmp_path / "absent.mar", log_dir=tmp_path),
    ):
        pass


def test_a_file_that_is_no_archive_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mar"
    broken.write_text("not a zip")
    with (
        pytest.raises(ServerError, match=r"broken\.mar is not an archive"),
        running_server(broken, log_dir=tmp_path),
    ):
        pass
