"""Network isolation: a package is all that it takes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serving.contract.rows import Array
from tests.serving.traffic import assert_same_answer

UNSHARE = ("unshare", "--net", "--map-root-user")
WITHIN_S = 300


def can_have_a_network_of_its_own() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(
    not can_have_a_network_of_its_own(), reason="this system gives no process a network of its own"
)
def test_a_package_is_served_without_a_network(
    package: Path,
    png: Path,
    picture: Array,
    repo_root: Path,
    answer_to: Callable[[Array], dict[str, Any]],
) -> None:
    script = "tests.serving.sagemaker.offline"
    command = [*UNSHARE, sys.executable, "-m", script, str(package), str(png)]
    served = subprocess.run(
        command, cwd=repo_root, capture_output=True, text=True, timeout=WITHIN_S, check=False
    )
    assert served.returncode == 0, served.stderr
    assert_same_answer(json.loads(served.stdout), answer_to(picture))
