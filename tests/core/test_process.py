"""Set-up of a worker process: threads, huge pages and freed memory."""

import gc
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import torch

from d2serve.serving import process
from d2serve.serving.process import (
    HUGE_PAGES,
    decode_threads,
    enable_huge_pages,
    freeze_objects,
    set_num_threads,
)
from tests.environment import clean_environment

CORES = 4
HUGE_PAGES_FILE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# "hg": the process has advised the system to use huge pages.
FLAGS_OF_A_TENSOR = """
from pathlib import Path
import torch
from d2serve.serving.process import enable_huge_pages

enable_huge_pages()
tensor = torch.ones(64, 1024, 1024)
middle = tensor.data_ptr() + tensor.nbytes // 2
for line in Path("/proc/self/smaps").read_text().splitlines():
    name, *fields = line.split()
    if not name.endswith(":"):
        start, end = (int(address, 16) for address in name.split("-"))
    elif name == "VmFlags:" and start <= middle < end:
        print(*fields)
"""

# In a thread that starts afterwards, as that of the network. Blocks move for some rounds, because
# an aligned one needs a free block that is larger.
PAGE_FAULTS_OF_FREED_MEMORY = """
import ctypes
import resource
from threading import Thread
import torch
from d2serve.serving.process import keep_freed_memory, release_freed_memory

# PR_SET_THP_DISABLE: a fault for each 4 kB, whatever the system's setting of huge pages is.
assert ctypes.CDLL(None).prctl(41, 1, 0, 0, 0) == 0

def allocate():
    for _ in range(9):
        before = faults()
        for megabytes in (40, 20, 100):
            torch.ones(megabytes, 1 << 18)
        found.append(faults() - before)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

found = []
print(keep_freed_memory())
thread = Thread(target=allocate)
thread.start()
thread.join()
release_freed_memory()
before = faults()
torch.ones(100, 1 << 18)
print(found[0], found[-1], faults() - before)
"""
gnu_libc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for GNU's libc")


@pytest.fixture(autouse=True)
def _four_torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("workers", "share"), [(1, 4), (2, 2), (3, 1), (4, 1), (9, 1)])
def test_workers_divide_the_available_cpus(
    monkeypatch: pytest.MonkeyPatch, workers: int, share: int
) -> None:
    monkeypatch.setattr(process, "OWN_THREADS", 16)
    for _ in range(2):  # a process may load several models
        set_num_threads(0, workers, {}, lambda: CORES)
        assert torch.get_num_threads() == share


def test_torch_keeps_fewer_threads_than_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "OWN_THREADS", 2)
    set_num_threads(0, 1, {}, lambda: CORES)
    assert torch.get_num_threads() == 2


def test_set_number_of_threads_wins_over_the_environment() -> None:
    set_num_threads(3, 4, {"OMP_NUM_THREADS": "1"})
    assert torch.get_num_threads() == 3


def test_opencv_starts_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[int] = []
    monkeypatch.setattr(cv2, "setNumThreads", requested.append)
    set_num_threads(1, 1)
    assert requested == [1]


def test_frozen_objects_are_not_collected() -> None:
    before = gc.get_freeze_count()
    freeze_objects()
    try:
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()


def test_omp_num_threads_is_respected() -> None:
    set_num_threads(0, 4, {"OMP_NUM_THREADS": "4"})
    assert torch.get_num_threads() == CORES


@pytest.mark.parametrize(
    ("threads", "workers", "expected"),
    [(0, 1, 4), (0, 3, 1), (0, 9, 1), (1, 1, 1), (6, 2, 6)],
)
def test_decode_threads_divide_the_available_cpus_by_default(
    threads: int, workers: int, expected: int
) -> None:
    assert decode_threads(threads, workers, lambda: CORES) == expected


def test_huge_pages_setting_of_the_environment_is_respected() -> None:
    environment = {HUGE_PAGES: "0"}
    enable_huge_pages(environment)
    assert environment == {HUGE_PAGES: "0"}


@pytest.mark.skipif(
    not HUGE_PAGES_FILE.exists() or "[never]" in HUGE_PAGES_FILE.read_text(),
    reason="this Linux has no huge pages",
)
def test_large_tensor_is_for_huge_pages(repo_root: Path) -> None:
    """The system may have none left, as other programs need them too."""
    command = [sys.executable, "-c", FLAGS_OF_A_TENSOR]
    environment = {**clean_environment(), "PYTHONPATH": str(repo_root / "handler")}
    assert "hg" in subprocess.check_output(command, env=environment, text=True).split()


@gnu_libc
def test_thread_uses_freed_memory_again_until_it_is_released(repo_root: Path) -> None:
    kept, (first, last, released) = _faults_of_freed_memory(repo_root, {})
    # 100 MB are 25,600 pages of 4 kB.
    assert kept
    assert first > 20_000
    assert last < 1_000
    assert released > 20_000


@gnu_libc
@pytest.mark.parametrize(
    "variables",
    [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=65536"}],
)
def test_allocator_settings_of_the_environment_win(
    repo_root: Path, variables: dict[str, str]
) -> None:
    kept, (_, last, _) = _faults_of_freed_memory(repo_root, variables)
    assert not kept
    assert last > 20_000


def _faults_of_freed_memory(
    repo_root: Path, variables: dict[str, str]
) -> tuple[bool, tuple[int, ...]]:
    """Return the result of `keep_freed_memory`, and page faults: of the first and last of equal
    rounds, and after the release."""
    inherited = clean_environment()
    names = [name for name in inherited if name.startswith(("MALLOC_", "GLIBC_TUNABLES"))]
    environment = {name: value for name, value in inherited.items() if name not in names}
    environment |= {"PYTHONPATH": str(repo_root / "handler"), **variables}
    command = [sys.executable, "-c", PAGE_FAULTS_OF_FREED_MEMORY]
    kept, faults = subprocess.check_output(command, env=environment, text=True).splitlines()
    return kept == "True", tuple(map(int, faults.split()))
