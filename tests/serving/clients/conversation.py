"""Run a program with unmodified clients, and compare the outcomes of its cases."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.environment import clean_environment
from tests.serving.traffic import BOX_TOLERANCE_PX, MIN_MASK_IOU, SCORE_TOLERANCE, mask_iou

ENVIRONMENT = ".venv-clients"
TIMEOUT_S = 300


@dataclass(frozen=True)
class Refusal:
    """A case that raised the client's exception."""

    status: Any
    message: str


@dataclass(frozen=True)
class Conversation:
    """The outcomes of a program's cases.

    Attributes:
        outcomes: a JSON object for each case, with `result`, or with `status` and `message`.
    """

    outcomes: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, repo_root: Path, program: str, *arguments: str) -> "Conversation":
        """Run a program of this folder in the clients' environment."""
        done = subprocess.run(
            [require_python(repo_root), Path(__file__).with_name(program), *arguments],
            env={**clean_environment(), "NO_PROXY": "*"},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr
        lines = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
        return cls({line.pop("case"): line for line in lines})

    def result(self, case: str) -> Any:
        """The result of a case that must succeed."""
        outcome = self.outcomes[case]
        assert "result" in outcome, outcome
        return outcome["result"]

    def refusal(self, case: str) -> Refusal:
        """The exception of a case that must fail."""
        outcome = self.outcomes[case]
        assert "status" in outcome, outcome
        return Refusal(outcome["status"], outcome["message"])


def require_python(repo_root: Path) -> Path:
    """The clients' Python; skips the test where it is not installed."""
    python = repo_root / ENVIRONMENT / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no {ENVIRONMENT}; `make test` installs the clients there")
    return python


def assert_same_tensors(tensors: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Compare the tensors of a response with an object of the default format."""
    assert tensors["classes"] == expected["classes"]
    np.testing.assert_allclose(tensors["scores"], expected["scores"], rtol=0, atol=SCORE_TOLERANCE)
    np.testing.assert_allclose(tensors["boxes"], expected["boxes"], rtol=0, atol=BOX_TOLERANCE_PX)
    masks = [json.loads(mask) for mask in tensors["masks"]]
    for mask, expected_mask in zip(masks, expected["masks"], strict=True):
        assert mask_iou(mask, expected_mask) >= MIN_MASK_IOU
