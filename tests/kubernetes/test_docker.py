"""The Dockerfiles: what they install, and the server that the container starts."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from tests.environment import clean_environment
from tests.kubernetes.dockerfile import instructions_in
from tests.kubernetes.manifests import DEPLOY

ASGI = DEPLOY / "docker" / "Dockerfile"
FILES = [ASGI, DEPLOY / "docker" / "ray.Dockerfile"]
TOKEN = "token-of-a-test"
PORT = "8080"
READY_WITHIN_S = 300


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_context_contains_what_is_copied(file: Path, repo_root: Path) -> None:
    ignored = (repo_root / ".dockerignore").read_text(encoding="utf-8").split("\n")
    included = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    dockerfile = instructions_in(file)
    copied = {word for line in dockerfile.all("COPY") for word in line.split()[:-1]}
    mounted = {
        part.removeprefix("source=")
        for line in dockerfile.all("RUN")
        for part in line.replace(" ", ",").split(",")
        if part.startswith("source=") and not part.startswith("source=/")
    }
    assert {"handler", "pyproject.toml"} < copied
    assert copied | mounted <= included
    assert all((repo_root / name).exists() for name in included)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_container_does_not_run_as_root(file: Path) -> None:
    dockerfile = instructions_in(file)
    assert dockerfile.all("USER") == ["1000:1000"]
    names = [name for name, _ in dockerfile.lines]
    assert max(i for i, name in enumerate(names) if name == "RUN") < names.index("USER")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_packages_have_exact_versions(file: Path) -> None:
    installs = [line for line in instructions_in(file).all("RUN") if "pip install" in line]
    assert installs
    assert all(
        "constraints.txt" in line or "-r /constraints-ray.txt" in line or "torch.txt" in line
        for line in installs
    )


@contextmanager
def started(command: list[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the container's command with this environment's d2serve."""
    assert command[0] == "d2serve"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "d2serve.cli.main", *command[1:]],
            cwd=log.parent,
            env={**clean_environment(), "D2SERVE_SERVER_TOKEN": TOKEN},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def test_the_container_serves_a_mounted_archive(
    shapes_mar: Path, shapes: Path, tmp_path: Path
) -> None:
    """With the command of the Dockerfile, except for the port and the place of the folder."""
    models = tmp_path / "models"
    models.mkdir()
    (models / "shapes.mar").symlink_to(shapes_mar)
    commands = instructions_in(ASGI).commands
    assert instructions_in(ASGI).all("EXPOSE") == [PORT]
    port = str(Ports.free().inference)
    folder = [str(models) if word == "/mnt/models" else word for word in commands["CMD"]]
    command = [*commands["ENTRYPOINT"], *folder, "--name", "my-model", "--port", port]
    check = [word.replace(f":{PORT}/", f":{port}/") for word in commands["HEALTHCHECK"]]
    assert check[0] == "python"
    image = next((shapes / "samples").glob("*.jpg")).read_bytes()
    log = tmp_path / "log"
    with started(command, log) as process:

        @retry(
            stop=stop_after_delay(READY_WITHIN_S),
            wait=wait_fixed(0.5),
            retry=retry_if_result(bool),
        )
        def unhealthy() -> int:
            assert process.poll() is None, log.read_text()
            ended = subprocess.run([sys.executable, *check[1:]], check=False, capture_output=True)
            return ended.returncode

        unhealthy()
        with httpx.Client(
            base_url=f"http://{LOOPBACK}:{port}", trust_env=False, timeout=60
        ) as http:
            predict = "/predictions/my-model"
            assert http.post(predict, content=image).status_code == 401
            http.headers["Authorization"] = f"Bearer {TOKEN}"
            assert http.post(predict, content=image).json()["labels"]
            assert http.get("/v1/models/my-model").json() == {"name": "my-model", "ready": True}
    assert process.returncode == 0, log.read_text()
    assert TOKEN not in log.read_text()
