"""The Makefile: help, usage, variables and the choice of Python."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment import clean_environment

DOCUMENTED = {
    *("help", "demo", "serve", "test", "archive", "predict", "lint", "fuzz", "sbom"),
    *("package", "sagemaker-local", "deploy", "undeploy", "transform", "clarify"),
    *("bench", "bench-peers", "bench-gpu", "loadtest", "soak", "postman", "test-pythons"),
}
# Keep these tests from installing packages.
INSTALLED = ".venv/.installed"
AS_INSTALLED = ("-o", INSTALLED, "-o", ".venv-container/.installed")


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", [(), ("help",)])
def test_help_lists_every_documented_target(repo_root: Path, arguments: tuple[str, ...]) -> None:
    help_text = make(repo_root, *AS_INSTALLED, *arguments)
    targets = {line.split()[1] for line in help_text.stdout.splitlines()}
    assert help_text.returncode == 0
    assert targets >= DOCUMENTED


@pytest.mark.parametrize(
    ("arguments", "usage"),
    [
        (("archive",), "usage: make archive CONFIG="),
        (("archive", "CONFIG=c.yaml", "NAME=n"), "usage: make archive CONFIG="),
        (("predict",), "usage: make predict IMAGE="),
        (("package",), "usage: make package NAME="),
        (("sagemaker-local",), "usage: make sagemaker-local NAME="),
        (("deploy", "NAME=n"), "usage: make deploy NAME="),
        (("undeploy",), "usage: make undeploy ENDPOINT="),
        (("transform", "NAME=n", "INPUT=s3://b/i"), "usage: make transform NAME="),
        (("clarify",), "usage: make clarify ENDPOINT="),
    ],
)
def test_missing_variable_shows_the_usage(
    repo_root: Path, arguments: tuple[str, ...], usage: str
) -> None:
    failed = make(repo_root, *AS_INSTALLED, *arguments)
    assert failed.returncode != 0
    assert usage in failed.stderr


def test_values_may_contain_spaces_and_quotes(repo_root: Path) -> None:
    failed = make(repo_root, *AS_INSTALLED, "predict", 'IMAGE=/no such/it\'s "here".png')
    assert 'error: /no such/it\'s "here".png does not exist' in failed.stderr


def test_patterns_are_not_expanded_to_file_names(repo_root: Path) -> None:
    model = ("CONFIG=models/shapes/config.yaml", "WEIGHTS=w.pth", "NAME=n")
    for pattern in ("M*", "NO.SUCH? M*"):
        failed = make(repo_root, *AS_INSTALLED, "archive", *model, f"IGNORE_KEYS={pattern}")
        assert f"error: --ignore-key '{pattern.split()[0]}' matches" in failed.stderr


@pytest.mark.parametrize(
    ("given", "environment", "passed"),
    [
        (["TOKEN=given"], {}, "given"),
        ([], {"D2SERVE_TOKEN": "ours"}, "ours"),
        (["TOKEN=given"], {"D2SERVE_TOKEN": "ours"}, "given"),
        pytest.param([], {"TOKEN": "of another program"}, "", id="foreign"),
    ],
)
def test_token_reaches_predict_only_through_the_environment(
    repo_root: Path, tmp_path: Path, given: list[str], environment: dict[str, str], passed: str
) -> None:
    command = tmp_path / "d2serve"
    command.write_text('#!/bin/sh\necho "token:$D2SERVE_TOKEN" "$@"\n')
    command.chmod(0o755)
    shown = subprocess.run(
        ["make", *AS_INSTALLED, f"D2SERVE={command}", "predict", "IMAGE=a.png", *given],
        cwd=repo_root,
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == f"token:{passed} predict a.png\n"


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ([], "--server asgi"),
        (["MODEL=a b.mar"], "a b.mar|--server|asgi"),
        (["MODELS=a.mar b.mar"], "a.mar b.mar --server asgi"),
        (["MODELS=tests/serving/conf*.py"], "tests/serving/conftest.py --server asgi"),
        (["TOKEN_FILE=my token"], "--server|asgi|--token-file|my token"),
        (["GRPC_PORT=8001"], "--server asgi --grpc-port 8001"),
        (["CORS_ORIGINS=*"], "--server asgi --cors-origin *"),
        (
            ["CORS_ORIGINS=https://a http://b:1"],
            "--server asgi --cors-origin https://a --cors-origin http://b:1",
        ),
        (
            ["FORWARDED_ALLOW_IPS=10.0.0.1,*", "FORWARD_TIMEOUT=60"],
            "--server asgi --forwarded-allow-ips 10.0.0.1,* --forward-timeout 60",
        ),
    ],
)
def test_serve_passes_every_option(
    repo_root: Path, tmp_path: Path, given: list[str], passed: str
) -> None:
    command = tmp_path / "d2serve"
    command.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    command.chmod(0o755)
    variables = (*AS_INSTALLED, "-o", "model-store/shapes.mar", f"D2SERVE={command}")
    shown = make(repo_root, *variables, "serve", "SERVER=asgi", *given)
    expected = passed.split("|") if "|" in passed else passed.split()
    assert shown.stdout.splitlines() == ["serve", *expected], shown.stderr


@pytest.fixture
def bare_project(tmp_path: Path, repo_root: Path) -> Path:
    """A folder with the Makefile and without environments."""
    shutil.copy(repo_root / "Makefile", tmp_path)
    (tmp_path / "constraints.txt").touch()
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/false"])
def test_broken_python_is_named(bare_project: Path, python: str) -> None:
    failed = make(bare_project, INSTALLED, f"PYTHON={python}")
    assert failed.returncode != 0
    assert python in failed.stderr
    assert "make PYTHON=" in failed.stderr


def test_old_python_is_named(bare_project: Path) -> None:
    python = bare_project / "old python"
    as_of_39 = "import sys; sys.version_info = (3, 9, 18); exec(sys.argv[1])"
    python.write_text(
        f"""#!/bin/sh
        case $1 in
            -c) exec {sys.executable} -c '{as_of_39}' "$2" ;;
            --version) echo Python 3.9.18 ;;
        esac
        """
    )
    python.chmod(0o755)
    failed = make(bare_project, INSTALLED, f"PYTHON={python}")
    assert failed.returncode != 0
    assert f'needs Python 3.10 to 3.13, and "{python}" is Python 3.9.18' in failed.stderr
