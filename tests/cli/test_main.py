"""The command line: help, exit codes and usage errors."""

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from d2serve.aws.clarify import PREDICTOR_FIELDS
from d2serve.aws.deployment import DEFAULT_INSTANCE, OPTIONS
from d2serve.building.packing import STORE
from d2serve.building.runtimes import RUNTIME_CHOICES
from d2serve.cli import archive, deploy, options, predict, sagemaker, serve
from d2serve.cli.main import invoke
from d2serve.errors import CommandError
from d2serve.servers.torchserve.launcher.network import TOKEN_VARIABLE
from d2serve.servers.torchserve.launcher.ports import LOOPBACK

COMMANDS = (
    *("archive", "package", "serve", "predict", "demo", "deploy", "undeploy", "transform"),
    *("clarify", "sagemaker-local", "ray-config", "batch"),
)
FORWARDED = ("loadtest", "bench")
HEAVY_MODULES = ("torch", "numpy", "boto3", "httpx")


def test_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f" {command} " in text for command in (*COMMANDS, *FORWARDED))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"d2serve {command}" in text.partition("Examples:")[2]


def test_help_starts_without_heavy_modules() -> None:
    code = (
        "import sys; from d2serve.cli.main import invoke; invoke(['--help']); "
        f"sys.exit(str([name for name in {HEAVY_MODULES} if name in sys.modules] or ''))"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stderr.strip() == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["--version"]) == 0
    assert capsys.readouterr().out.startswith("d2serve 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Usage: d2serve"),
        (["conquer"], "No such command 'conquer'"),
        (["archive"], "Missing option"),
        (["predict"], "Missing argument"),
        (["serve", "--port", "high"], "Invalid value for '--port'"),
        (["serve", "a.mar", "b.mar"], "use --server asgi for several"),
        (["serve", "--grpc-port", "8001"], "'--grpc-port': requires --server asgi"),
        (["serve", "--token-file", "a"], "'--token-file': requires --server asgi"),
        (["serve", "--server", "asgi", "--metrics-address", "::1"], "for '--metrics-address'"),
        (["serve", "--server", "apache"], "'apache' is not one of"),
        (["deploy", "--endpoint", "a"], "give either --name or --package"),
        (["deploy", "--endpoint", "a", "--name", "b", "--package", "c"], "give either --name or"),
    ],
)
def test_wrong_usage_exits_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.out + printed.err


def test_choices_are_those_of_the_modules() -> None:
    assert [mode.value for mode in deploy.Mode] == list(OPTIONS)
    assert [kind.value for kind in sagemaker.ClarifyType] == list(PREDICTOR_FIELDS)
    assert [runtime.value for runtime in archive.Runtime] == list(RUNTIME_CHOICES)
    assert options.DEFAULT_INSTANCE == DEFAULT_INSTANCE
    assert options.MODEL_STORE == STORE
    assert predict.TOKEN_VARIABLE == TOKEN_VARIABLE
    assert serve.LOOPBACK == LOOPBACK


@pytest.mark.parametrize("kind", ["torchserve", "asgi"])
@pytest.mark.parametrize("origin", ["example.org", "https://example.org/", "https://*.example.org"])
def test_an_origin_that_no_browser_sends_is_rejected(kind: str, origin: str) -> None:
    arguments = ["serve", "--server", kind, "--cors-origin", "https://a", "--cors-origin", origin]
    with pytest.raises(CommandError, match=r"is not an origin; use .*https://example\.org"):
        invoke(arguments)


@pytest.mark.parametrize("given", ["--certificate", "--key"])
def test_certificate_and_key_belong_together(given: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="--certificate and --key belong together"):
        invoke(["serve", given, str(tmp_path)])


@pytest.mark.parametrize(("command", "missing"), [("demo", "models/shapes"), ("loadtest", "bench")])
def test_commands_of_the_repository_name_it(
    command: str, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError, match=rf"{missing}(.|\n)*part of the repository") as failed:
        invoke([command])
    assert "checkout" in str(failed.value)


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [
        (["undeploy", "--endpoint", "a"], "boto3", "aws"),
        (["predict", "a.jpg", "--endpoint", "a"], "boto3", "aws"),
        (["serve"], "psutil", "torchserve"),
    ],
)
def test_missing_package_names_its_extra(
    arguments: list[str],
    module: str,
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("d2serve.aws") or name.partition(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        if name == "d2serve.servers.torchserve.launcher.network":
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return original(name, *rest, **more)

    (tmp_path / "a.jpg").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CommandError, match=rf"'{module}' is not installed.*d2serve\[{extra}\]"):
        invoke(arguments)


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [(["--server", "asgi"], "starlette", "asgi"), (["--grpc-port", "1"], "grpc", "grpc")],
)
def test_missing_package_of_the_server_process_names_its_extra(
    arguments: list[str], module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_spec(name: str) -> object:
        return None if name == module else object()

    monkeypatch.setattr("d2serve.cli.options.find_spec", find_spec)
    with pytest.raises(CommandError, match=rf"'{module}' is not installed.*d2serve\[{extra}\]"):
        invoke(["serve", "a.mar", "--server", "asgi", *arguments])


def test_benchmark_receives_all_arguments(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = []

    def main(arguments: list[str]) -> int:
        received.append(arguments)
        return 4

    monkeypatch.chdir(repo_root)
    monkeypatch.setattr("bench.__main__.main", main)
    assert invoke(["loadtest", "--model", "a b.mar", "--help"]) == 4
    assert invoke(["bench", "soak", "--minutes", "1"]) == 4
    assert received == [["load", "--model", "a b.mar", "--help"], ["soak", "--minutes", "1"]]
