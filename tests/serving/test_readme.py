"""Every command of the README is run, in a copy of the project."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from tests.environment import clean_environment

README_PORT = "8080"
# This very run is what `make test` does.
RUNNING_NOW = "make test"
NOT_COPIED = (".git", ".venv*", "out", "logs", "*.mar", ".*_cache", "__pycache__")
READY_WITHIN_S = 120


def blocks_of(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands_of(page: Path) -> list[str]:
    return [line for block in blocks_of(page, "sh") for line in block.splitlines() if line]


def example_answer(repo_root: Path) -> dict[str, object]:
    [block] = blocks_of(repo_root / "README.md", "json")
    answer: dict[str, object] = json.loads(block)
    return answer


@pytest.fixture(scope="module")
def port() -> str:
    return str(Ports.free().inference)


@pytest.fixture(scope="module")
def project(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("clone") / "d2serve"
    shutil.copytree(repo_root, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    for environment in repo_root.glob(".venv*"):
        (copy / environment.name).symlink_to(environment)
    return copy


def start(command: str, project: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        ["bash", "-c", command],
        cwd=project,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(command: str, project: Path) -> str:
    process = start(command, project)
    output, _ = process.communicate()
    assert process.returncode == 0, f"{command}\n{output}"
    return output


def is_healthy(port: str) -> bool:
    try:
        answer = httpx.get(f"http://{LOOPBACK}:{port}/ping", trust_env=False)
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.OK


@contextmanager
def serving(
    command: str, project: Path, port: str, is_ready: Callable[[str], bool] = is_healthy
) -> Iterator[None]:
    process = start(f"{command} PORT={port}", project)
    try:
        deadline = time.monotonic() + READY_WITHIN_S
        while not is_ready(port):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, f"{command}: not ready"
            time.sleep(0.2)
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate()


def test_every_command_of_the_readme_works(repo_root: Path, project: Path, port: str) -> None:
    commands = commands_of(repo_root / "README.md")
    before = [command for command in commands if not uses_server(command)]
    assert "make demo" in before
    assert RUNNING_NOW in before
    for command in before:
        if command != RUNNING_NOW and not command.startswith("make serve"):
            run(command, project)
    assert_overlays(project / "out", project / "models" / "shapes" / "samples")
    [serve] = [command for command in before if command.startswith("make serve")]
    requests = [command for command in commands if uses_server(command)]
    assert len(requests) == 3
    with serving(serve, project, port):
        asked, drawn, predicted = (run(at_port(request, port), project) for request in requests)
        try_the_api_page(repo_root / "docs" / "api.md", project, port)
    answer = json.loads(asked[asked.index("{") : asked.rindex("}") + 1])
    assert answer["names"]
    assert list(answer) == list(example_answer(repo_root))
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
    printed = run(f"{sys.executable} -c '{at_port(code, port)}'", project)
    assert printed == "[]\n"


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
        with Image.open(sample) as picture, Image.open(drawn[sample.stem]) as overlay:
            assert overlay.size == picture.size


def test_every_link_of_the_readme_and_the_docs_leads_somewhere(repo_root: Path) -> None:
    pages = [*repo_root.glob("*.md"), *(repo_root / "docs").glob("*.md")]
    assert repo_root / "SECURITY.md" in pages
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
