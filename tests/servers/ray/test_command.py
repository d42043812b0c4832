"""`d2serve serve --server ray` without Ray, and the isolation of Ray from the rest."""

import subprocess
import sys
from pathlib import Path

import pytest

from d2serve.cli.main import invoke
from d2serve.errors import CommandError
from d2serve.servers.ray.environment import HAPROXY_FOLDER, haproxy_environment, ray_environment
from d2serve.servers.ray.private_ray import LONGEST_FOLDER, SHORT_FOLDER
from tests.certificates import self_signed_ec

SERVE = ["serve", "a.mar", "--server", "ray"]


@pytest.mark.parametrize("module", ["ray", "starlette"])
def test_a_missing_package_names_its_extra(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> object:
        return None if name == module else object()

    monkeypatch.setattr("d2serve.cli.options.find_spec", find_spec)
    with pytest.raises(CommandError, match=rf"'{module}' is not installed.*d2serve\[ray\]"):
        invoke(SERVE)


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--grpc-port", "8001", "--server asgi"),
        ("--metrics-address", "127.0.0.1", "/metrics"),
        ("--forwarded-allow-ips", "*", "proxy"),
    ],
)
def test_an_option_that_ray_does_not_support_is_rejected(
    option: str, value: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke([*SERVE, option, value]) == 2
    printed = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert f"'{option}': is not supported by --server ray" in printed
    assert reason in printed


def test_a_certificate_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = self_signed_ec(tmp_path)
    assert invoke([*SERVE, "--certificate", str(pair.chain), "--key", str(pair.key)]) == 2
    assert "is not supported by --server ray" in capsys.readouterr().err


def test_rays_ports_need_a_token_and_haproxy_has_files_of_its_own(tmp_path: Path) -> None:
    first = ray_environment(tmp_path, has_haproxy=True)
    assert first["RAY_AUTH_MODE"] == "token"
    assert len(first["RAY_AUTH_TOKEN"]) == 64
    for name in ("CONFIG_FILE_LOC", "SOCKET_PATH", "METRICS_SOCKET_PATH", "SERVER_STATE_BASE"):
        assert first[f"RAY_SERVE_HAPROXY_{name}"].startswith(str(tmp_path))
    assert first["RAY_SERVE_HAPROXY_METRICS_PORT"] != first["RAY_SERVE_HAPROXY_STATS_PORT"]
    second = ray_environment(tmp_path, has_haproxy=False)
    assert second["RAY_AUTH_TOKEN"] != first["RAY_AUTH_TOKEN"]
    assert "RAY_SERVE_ENABLE_HA_PROXY" not in second


def test_the_paths_of_haproxys_sockets_are_short_enough() -> None:
    """Ray inserts a name of 56 characters, and HAProxy accepts 97 characters in all."""
    home = Path("a" * LONGEST_FOLDER, "d2s-12345678")
    folder = home / HAPROXY_FOLDER / ("b" * 56)
    assert len(str(folder / "metrics.sock")) <= 97
    assert len(SHORT_FOLDER) <= LONGEST_FOLDER


def test_only_the_ray_server_imports_ray(repo_root: Path) -> None:
    """This environment has no Ray: every other module can be imported without it."""
    code = """
import importlib, pkgutil, sys
import d2serve, d2serve.servers.ray, d2serve.servers.ray.local, d2serve.servers.ray.options
sys.modules["ray"] = None
for module in pkgutil.walk_packages(d2serve.__path__, "d2serve."):
    inside = module.name.startswith(("d2serve.servers.ray.", "d2serve.servers.torchserve."))
    # Modules that CVAT or AWS's container imports need packages that this environment lacks.
    foreign = module.name.startswith(("d2serve.aws.container", "d2serve.integrations.cvat"))
    if not inside and not foreign:
        importlib.import_module(module.name)
"""
    folder = repo_root / "handler"
    command = [sys.executable, "-W", "ignore", "-c", code]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_two_rays_of_a_machine_share_no_port(tmp_path: Path) -> None:
    """Ray's proxies listen with SO_REUSEPORT, and would receive each other's requests."""
    environments = [haproxy_environment(tmp_path / name) for name in ("one", "other")]
    ports = [{each[name] for name in each if name.endswith("_PORT")} for each in environments]
    assert {name for name in environments[0] if name.endswith("_PORT")} == {
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT",
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
        "RAY_SERVE_HAPROXY_METRICS_PORT",
        "RAY_SERVE_HAPROXY_STATS_PORT",
    }
    assert not {"8500", "9500"} & (ports[0] | ports[1])
    assert len(ports[0]) == len(ports[1]) == 6
