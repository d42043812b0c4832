"""Runs every command of the README and of docs/api.md in a copy of the repository."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from tests import shell
from tests.environment import clean_environment

README_PORT = "8080"
# The tests themselves; not started again.
MAKE_TEST = "make test"
NOT_COPIED = (".git", ".venv*", "out", "logs", "*.mar", ".*_cache", "__pycache__")
READY_WITHIN_S = 300
# Files of an environment that make compares with the requirements.
STAMPS = (".created", ".installed")


def blocks_of(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands_of(page: Path) -> list[str]:
    return [line for block in blocks_of(page, "sh") for line in block.splitlines() if line]


def example_response(repo_root: Path) -> dict[str, object]:
    [block] = blocks_of(repo_root / "README.md", "json")
    response: dict[str, object] = json.loads(block)
    return response


@pytest.fixture(scope="module")
def port() -> str:
    return str(Ports.free().inference)


@pytest.fixture(scope="module")
def project(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_current_environments(repo_root)
    copy = tmp_path_factory.mktemp("clone") / "d2serve"
    shutil.copytree(repo_root, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    for environment in repo_root.glob(".venv*"):
        link_environment(environment, copy / environment.name)
    return copy


def link_environment(environment: Path, copy: Path) -> None:
    """Link an environment's content; fresh stamps keep make from installing the copy into it."""
    copy.mkdir()
    for entry in environment.iterdir():
        if entry.name in STAMPS:
            (copy / entry.name).touch()
        else:
            (copy / entry.name).symlink_to(entry)


def require_current_environments(repo_root: Path) -> None:
    """Fail if make would install packages into the environments, which the copy shares."""
    for environment, *sources in (
        (".venv", "pyproject.toml", "constraints.txt"),
        (".venv-container", "constraints-sagemaker.txt"),
        (".venv-ray", "pyproject.toml", "constraints-ray.txt"),
    ):
        installed = (repo_root / environment / ".installed").stat().st_mtime
        for source in sources:
            changed = (repo_root / source).stat().st_mtime
            assert changed <= installed, f"{source} has changed; run `make environments`"


def run(command: str, project: Path) -> str:
    return shell.run(command, project, clean_environment())


def is_healthy(port: str) -> bool:
    return shell.is_healthy(f"http://{LOOPBACK}:{port}/ping")


def serving(
    command: str, project: Path, port: str, is_ready: Callable[[str], bool] = is_healthy
) -> AbstractContextManager[None]:
    server = f"{command} PORT={port}"
    ready = partial(is_ready, port)
    return shell.running(server, project, clean_environment(), ready, READY_WITHIN_S)


def test_every_command_of_the_readme_works(repo_root: Path, project: Path, port: str) -> None:
    commands = commands_of(repo_root / "README.md")
    before = [command for command in commands if not uses_server(command)]
    assert "make demo" in before
    assert MAKE_TEST in before
    for command in before:
        if command != MAKE_TEST and not command.startswith("make serve"):
            run(command, project)
    assert_overlays(project / "out", project / "models" / "shapes" / "samples")
    [example] = blocks_of(repo_root / "README.md", "python")
    assert "circle" in run_python(example, project)
    servers = [command for command in before if command.startswith("make serve")]
    assert len(servers) == 2
    requests = [command for command in commands if uses_server(command)]
    assert len(requests) == 3
    for serve in servers:
        with serving(serve, project, port):
            assert_responses(repo_root, project, [at_port(request, port) for request in requests])
            try_the_api_page(repo_root / "docs" / "api.md", project, port)
            try_the_clients(repo_root / "docs" / "python.md", project, port)


def assert_responses(repo_root: Path, project: Path, requests: list[str]) -> None:
    detected, drawn, predicted = (run(request, project) for request in requests)
    response = json.loads(detected[detected.index("{") : detected.rindex("}") + 1])
    assert response["names"]
    assert list(response) == list(example_response(repo_root))
    with Image.open(project / "overlay.png") as overlay:
        assert overlay.format == "PNG", drawn
    assert "shapes_01.jpg" in predicted


def try_the_api_page(page: Path, project: Path, port: str) -> None:
    commands = commands_of(page)
    [code] = [code for code in blocks_of(page, "python") if f":{README_PORT}/" in code]
    assert len(commands) == 4
    for command in commands:
        output = run(f"{at_port(command, port)} --fail-with-body -w %{{http_code}}", project)
        assert output.endswith("200"), output
    assert run_python(at_port(code, port), project) == "[]\n"


def try_the_clients(page: Path, project: Path, port: str) -> None:
    """The examples of docs/python.md that call a server."""
    blocks = [code for code in blocks_of(page, "python") if f":{README_PORT}" in code]
    client, folder, coroutine = (code.replace(f":{README_PORT}", f":{port}") for code in blocks)
    assert "circle" in run_python(client, project)
    run_python(folder, project)
    results = json.loads((project / "results.json").read_text())
    assert {result["image_id"] for result in results} >= {"shapes_01.jpg", "shapes_02.png"}
    assert all(isinstance(result["segmentation"][0], list) for result in results)
    run_detect = (
        'import asyncio\nprint(len(asyncio.run(detect(["models/shapes/samples/shapes_01.jpg"]))))'
    )
    assert run_python(f"import d2serve\n{coroutine}\n{run_detect}", project) == "1\n"


def run_python(code: str, project: Path) -> str:
    script = project / "example.py"
    script.write_text(code, encoding="utf-8")
    return run(f"{sys.executable} {script.name}", project)


def test_every_example_of_the_python_page_works(repo_root: Path, project: Path) -> None:
    blocks = blocks_of(repo_root / "docs" / "python.md", "python")
    predict, select, build = (code for code in blocks if f":{README_PORT}" not in code)
    printed = run_python(f"{build}\n{predict}\n{select}", project)
    assert "circle" in printed
    results = json.loads(printed.splitlines()[-1])
    assert {"image_id", "category_id", "bbox", "score", "segmentation"} == set(results[0])


def uses_server(command: str) -> bool:
    return command.startswith(("curl", "make predict"))


def at_port(command: str, port: str) -> str:
    if command.startswith("make predict"):
        return f"{command} URL=http://{LOOPBACK}:{port}/invocations"
    return command.replace(f":{README_PORT}/", f":{port}/").replace("curl ", "curl -s ")


def assert_overlays(out: Path, samples: Path) -> None:
    drawn = {path.stem: path for path in out.iterdir()}
    assert sorted(drawn) == sorted(path.stem for path in samples.iterdir())
    for sample in samples.iterdir():
        with Image.open(sample) as image, Image.open(drawn[sample.stem]) as overlay:
            assert overlay.size == image.size
