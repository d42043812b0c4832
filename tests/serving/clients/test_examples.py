"""The examples of docs/api.md with tritonclient."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.environment import clean_environment
from tests.serving.clients.conversation import require_python
from tests.serving.served import Served

pytestmark = pytest.mark.parametrize("server_name", ["asgi"], indirect=True, scope="session")


@pytest.mark.parametrize("library", ["tritonclient.http", "tritonclient.grpc"])
def test_example(repo_root: Path, served: Served, grpc_address: str, library: str) -> None:
    page = (repo_root / "docs" / "api.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    [example] = [block for block in blocks if f"import {library}" in block]
    for documented, actual in (
        ("127.0.0.1:8080", served.url.partition("://")[2]),
        ("127.0.0.1:8001", grpc_address),
        ("my-model", served.model_name),
    ):
        example = example.replace(documented, actual)
    done = subprocess.run(
        [require_python(repo_root), "-c", example],
        cwd=repo_root,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"\[\[.*\]\] \[\d.*\]", done.stdout, re.DOTALL), done.stdout
