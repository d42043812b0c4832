"""The container's environment and its errors, with a script instead of the toolkit."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from d2serve.aws import local_container
from d2serve.aws.local_container import on_loopback, running_container
from d2serve.errors import ContainerError
from d2serve.servers.torchserve.launcher.ports import Ports
from tests.building.test_package import write_package

WITHIN_S = 60
PORTS = Ports(1, 2, 3, 4, 5)
REPORT = """
import json, os, pathlib
ml = os.listdir(os.environ["SAGEMAKER_BASE_DIR"])
report = {"environment": dict(os.environ), "folder": os.getcwd(), "ml": ml}
pathlib.Path(os.environ["LOG_LOCATION"], "report.json").write_text(json.dumps(report))
"""

Script = Callable[[str], None]


@pytest.fixture
def toolkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Script:
    """Replaces the toolkit by a script."""
    entrypoint = tmp_path / "entrypoint.py"
    monkeypatch.setattr(local_container, "ENVIRONMENT", Path(sys.prefix))
    monkeypatch.setattr(local_container, "ENTRYPOINT", entrypoint)

    def replace(code: str) -> None:
        entrypoint.write_text(code)

    return replace


def test_container_has_its_own_environment_only(
    toolkit: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolkit(REPORT)
    monkeypatch.setenv("D2SERVE_THREADS", "7")
    given = {"D2SERVE_PADDING": "batch", "LANG": "C", "TS_INFERENCE_ADDRESS": "http://0.0.0.0:8080"}
    with running_container(None, given, log_dir=tmp_path, ports=PORTS) as container:
        assert container.process.wait(WITHIN_S) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    seen = report["environment"]
    assert "D2SERVE_THREADS" not in seen
    assert (seen["D2SERVE_PADDING"], seen["LANG"]) == ("batch", "C")
    assert seen["TS_INFERENCE_ADDRESS"] == "http://127.0.0.1:1"
    assert seen["SAGEMAKER_BASE_DIR"] == str(container.home / "ml")
    assert seen["SAGEMAKER_MULTI_MODEL"] == "true"
    assert report["ml"] == ["models"]
    assert Path(report["folder"]).is_relative_to(container.home)
    assert not container.home.exists()


def test_package_is_unpacked_as_the_single_model(toolkit: Script, tmp_path: Path) -> None:
    toolkit(REPORT)
    package = write_package(tmp_path / "a.tar.gz", weights="heavy")
    with running_container(package, {}, log_dir=tmp_path) as container:
        assert container.process.wait(WITHIN_S) == 0
        assert (container.home / "ml" / "model" / "weights").read_text() == "heavy"
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ml"] == ["model"]
    assert "SAGEMAKER_MULTI_MODEL" not in report["environment"]


def test_errors_contain_the_end_of_the_log(toolkit: Script, tmp_path: Path) -> None:
    toolkit("raise SystemExit('there is no room')")
    with running_container(None, {}, log_dir=tmp_path / "logs") as container:
        with pytest.raises(ContainerError, match=r"during its start(.|\n)*there is no room"):
            container.wait_until_healthy(WITHIN_S)
        with pytest.raises(ContainerError, match=r"ended unexpectedly(.|\n)*there is no room"):
            container.wait_for_exit()


def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_container, "ENVIRONMENT", tmp_path / "none")
    with (
        pytest.raises(
            ContainerError,
            match="none is missing; `make sagemaker-local CONTAINER=pytorch` installs it",
        ),
        running_container(None, {}, log_dir=tmp_path),
    ):
        pass


def test_container_listens_on_loopback() -> None:
    assert on_loopback({}, PORTS) == {
        "TS_INFERENCE_ADDRESS": "http://127.0.0.1:1",
        "TS_MANAGEMENT_ADDRESS": "http://127.0.0.1:1",
        "TS_METRICS_ADDRESS": "http://127.0.0.1:3",
        "TS_GRPC_INFERENCE_PORT": "4",
        "TS_GRPC_MANAGEMENT_PORT": "5",
    }


def test_behind_the_proxy_torchserve_has_another_port() -> None:
    variables = on_loopback({"D2SERVE_PUBLIC_ADDRESS": "0.0.0.0:8080"}, PORTS)
    assert variables["D2SERVE_PUBLIC_ADDRESS"] == "127.0.0.1:1"
    assert variables["TS_INFERENCE_ADDRESS"] == "http://127.0.0.1:2"
    assert variables["TS_MANAGEMENT_ADDRESS"] == "http://127.0.0.1:2"
