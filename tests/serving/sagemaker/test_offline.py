"""Network isolation: a package needs no network."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serving.contract.rows import Array
from tests.serving.traffic import assert_same_prediction

UNSHARE = ("unshare", "--net", "--map-root-user")
TIMEOUT_S = 300


def can_create_network_namespace() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(
    not can_create_network_namespace(), reason="this system does not allow network namespaces"
)
def test_a_package_is_served_without_a_network(
    package: Path,
    png: Path,
    image: Array,
    repo_root: Path,
    prediction_of: Callable[[Array], dict[str, Any]],
) -> None:
    script = "tests.serving.sagemaker.offline"
    command = [*UNSHARE, sys.executable, "-m", script, str(package), str(png)]
    completed = subprocess.run(
        command, cwd=repo_root, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert completed.returncode == 0, completed.stderr
    assert_same_prediction(json.loads(completed.stdout), prediction_of(image))
