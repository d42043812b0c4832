"""CPUs of a process, by its affinity and by the quotas of cgroups in fake and real trees."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from d2serve.serving.cpu import affine_cpus, available_cpus

UNIFIED = "31 23 0:28 {group} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
CPU = "32 31 0:29 {group} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
CPUSET = "35 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"
CHILD = """
import sys
from d2serve.serving.cpu import available_cpus
sys.stdin.readline()
print(available_cpus())
"""


def tree(root: Path, mounts: str, groups: str, files: dict[str, str]) -> int:
    """Write the files of a machine with 16 CPUs, and return the number of CPUs that is found."""
    contents = {"proc/self/mountinfo": mounts, "proc/self/cgroup": groups}
    contents |= {f"sys/fs/cgroup/{name}": content for name, content in files.items()}
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return available_cpus(root, lambda: 16)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 16),
        ({"a/b/cpu.max": "max 100000"}, 16),
        ({"a/b/cpu.max": "200000 100000"}, 2),
        ({"a/b/cpu.max": "150000 100000"}, 2),
        ({"a/b/cpu.max": "10000 100000"}, 1),
        ({"a/b/cpu.max": "3200000 100000"}, 16),
        ({"a/b/cpu.max": "300000"}, 3),
        ({"a/b/cpu.max": "broken"}, 16),
        ({"a/b/cpu.max": ""}, 16),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "500000 100000"}, 5),
        ({"a/b/cpu.max": "800000 100000", "a/cpu.max": "500000 100000"}, 5),
        ({"a/b/cpu.max": "400000 100000", "a/cpu.max": "500000 100000"}, 4),
        ({"cpu.max": "700000 100000"}, 7),
        ({"other/cpu.max": "100000 100000"}, 16),
    ],
)
def test_the_smallest_quota_of_a_group_and_its_parents_counts(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    assert tree(tmp_path, UNIFIED.format(group="/"), "0::/a/b", files) == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [("-1", "100000", 16), ("250000", "100000", 3), ("50000", "100000", 1), ("400", "0", 16)],
)
@pytest.mark.parametrize("group", ["", "a/b/"])
def test_quotas_of_version_1(
    tmp_path: Path, quota: str, period: str, expected: int, group: str
) -> None:
    files = {
        f"cpu,cpuacct/{group}cpu.cfs_quota_us": quota,
        f"cpu,cpuacct/{group}cpu.cfs_period_us": period,
        "cpuset/a/b/cpu.cfs_quota_us": "1",
    }
    mounts = "\n".join([CPUSET, CPU.format(group="/")])
    groups = "9:cpuset:/a/b\n4:cpu,cpuacct:/a/b\n0::/"
    assert tree(tmp_path, mounts, groups, files) == expected


@pytest.mark.parametrize(
    ("own", "visible"),
    [
        pytest.param("/docker/1f", "/docker/1f", id="the machine's path, own group mounted"),
        pytest.param("/docker/1f/inner", "/docker/1f", id="a group inside the container"),
        pytest.param("/other/1f", "/docker/1f", id="a path outside the mount"),
        pytest.param("/../../1f", "/", id="a path outside the namespace"),
        pytest.param("/", "/", id="a namespace of its own"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_containers_read_the_quota_of_the_mount_point(
    tmp_path: Path, own: str, visible: str, version: int
) -> None:
    if version == 2:
        files, mounts, groups = {"cpu.max": "200000 100000"}, UNIFIED, f"0::{own}"
    else:
        folder = "cpu,cpuacct/cpu.cfs_"
        files = {f"{folder}quota_us": "200000", f"{folder}period_us": "100000"}
        mounts, groups = CPU, f"4:cpuacct,cpu:{own}"
    assert tree(tmp_path, mounts.format(group=visible), groups, files) == 2


def test_containers_read_the_quota_of_a_group_inside(tmp_path: Path) -> None:
    files = {"cpu.max": "600000 100000", "inner/cpu.max": "200000 100000"}
    mounts = UNIFIED.format(group="/docker/1f")
    assert tree(tmp_path, mounts, "0::/docker/1f/inner", files) == 2


def test_groups_outside_the_namespace_are_not_read(tmp_path: Path) -> None:
    files = {"cpu.max": "600000 100000", "../1f/cpu.max": "200000 100000"}
    assert tree(tmp_path, UNIFIED.format(group="/"), "0::/../1f", files) == 6


def test_quotas_of_a_hybrid_machine_are_combined(tmp_path: Path) -> None:
    mounts = "\n".join(["broken line", UNIFIED.format(group="/"), CPU.format(group="/")])
    files = {
        "cpu.max": "500000 100000",
        "cpu,cpuacct/cpu.cfs_quota_us": "300000",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
    }
    assert tree(tmp_path, mounts, "4:cpu,cpuacct:/\n0::/", files) == 3


def test_a_machine_without_cgroups_has_the_cpus_of_the_affinity(tmp_path: Path) -> None:
    assert available_cpus(tmp_path, lambda: 5) == 5


def count_in_child(repo_root: Path, group: Path | None = None, cpus: set[int] | None = None) -> int:
    """Run `available_cpus` in a process that was put into a group or onto some CPUs before."""
    environment = {**os.environ, "PYTHONPATH": str(repo_root / "handler")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, env=environment, text=True, **pipes) as child:  # type: ignore[call-overload]
        if group:
            (group / "cgroup.procs").write_text(str(child.pid))
        if cpus:
            os.sched_setaffinity(child.pid, cpus)
        output, _ = child.communicate("\n", timeout=60)
    return int(output)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no CPU affinity")
def test_affinity_of_a_real_process_counts(repo_root: Path) -> None:
    [first, *_] = sorted(os.sched_getaffinity(0))
    assert count_in_child(repo_root, cpus={first}) == 1
    assert count_in_child(repo_root) == available_cpus() <= affine_cpus()


@pytest.fixture
def real_group() -> Iterator[Path]:
    """A new cgroup with a quota of half a CPU, where this user may create one."""
    name = f"d2serve-test-{os.getpid()}"
    limits = {
        Path("/sys/fs/cgroup/cpu"): {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"},
        Path("/sys/fs/cgroup"): {"cpu.max": "50000 100000"},
    }
    for parent, files in limits.items():
        group = parent / name
        with suppress(OSError):
            group.mkdir()
            try:
                for file, content in files.items():
                    (group / file).write_text(content)
                yield group
                return
            finally:
                group.rmdir()
    pytest.skip("this user cannot create a cgroup with a CPU quota")


def test_quota_of_a_real_cgroup_counts(repo_root: Path, real_group: Path) -> None:
    assert count_in_child(repo_root, group=real_group) == 1
