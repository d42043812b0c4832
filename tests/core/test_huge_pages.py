"""Large tensors lie in large pages."""

import subprocess
import sys
from pathlib import Path

import pytest

from d2serve.serving.process import HUGE_PAGES, take_huge_pages
from tests.environment import clean_environment

OFFERED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FAULTS_OF_A_TENSOR = """
import resource
import torch
from handler.huge_pages import take_huge_pages

take_huge_pages()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
tensor = torch.ones(64, 1024, 1024)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_what_the_environment_decided_stands() -> None:
    environment = {HUGE_PAGES: "0"}
    take_huge_pages(environment)
    assert environment == {HUGE_PAGES: "0"}


@pytest.mark.skipif(
    not OFFERED.exists() or "[never]" in OFFERED.read_text(), reason="this Linux has no huge pages"
)
def test_a_tensor_does_not_come_page_by_page(repo_root: Path) -> None:
    command = [sys.executable, "-c", FAULTS_OF_A_TENSOR]
    environment = {**clean_environment(), "PYTHONPATH": str(repo_root)}
    faults = int(subprocess.check_output(command, env=environment, text=True))
    # 256 MB: 65,536 pages of 4 kB, or 128 of 2 MB; a machine short of memory may not have all.
    assert faults < 32_768
