"""Number of CPUs that this process may use: CPU affinity and cgroup quotas of Linux.

A container with a quota of two CPUs sees all cores of its machine. With a thread per core it would
use up the quota early in each period, and all threads would pause for the rest.
"""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path("/")


class _Mount(NamedTuple):
    """A mounted cgroup hierarchy with CPU quotas.

    Attributes:
        group: the group that is visible at `folder`; containers see only a part of a hierarchy.
        folder: the mount point.
        is_unified: whether it is the hierarchy of version 2.
    """

    group: PurePosixPath
    folder: PurePosixPath
    is_unified: bool


def affine_cpus() -> int:
    """The number of CPUs that the scheduler may run this process on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_cpus(root: Path = ROOT, affine: Callable[[], int] = affine_cpus) -> int:
    """The number of CPUs that this process may use, at least 1; part of a CPU counts as one.

    Args:
        root: contains `proc` and the mount points of cgroups.
        affine: returns the number of CPUs without quotas.
    """
    quotas = (
        quota
        for mount in _mounts(root)
        for folder in _groups(root, mount)
        for quota in (_unified_quota(folder) if mount.is_unified else _quota(folder),)
    )
    return max(1, math.ceil(min((affine(), *quotas))))


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _lines(root / "proc/self/mountinfo"):
        # For example: 36 35 98:0 /group /folder rw shared:4 - cgroup cgroup rw,cpu
        fields, _, filesystem = (part.split() for part in line.partition(" - "))
        if len(fields) < 5 or len(filesystem) < 3:
            continue
        is_unified = filesystem[0] == "cgroup2"
        if is_unified or (filesystem[0] == "cgroup" and "cpu" in filesystem[2].split(",")):
            yield _Mount(PurePosixPath(fields[3]), PurePosixPath(fields[4]), is_unified)


def _groups(root: Path, mount: _Mount) -> Iterator[Path]:
    """Folders of this process's group and of its parents, as far as they are mounted.

    The path of the own group may lie outside the mount: without a cgroup namespace a container
    reads the machine's path and sees its own group at the mount point.
    """
    top = root / mount.folder.relative_to("/")
    own = PurePosixPath(_own_group(root, is_unified=mount.is_unified))
    inner = own.relative_to(mount.group) if own.is_relative_to(mount.group) else PurePosixPath()
    if ".." in inner.parts:
        inner = PurePosixPath()
    yield from (top / path for path in (inner, *inner.parents))


def _own_group(root: Path, *, is_unified: bool) -> str:
    for line in _lines(root / "proc/self/cgroup"):
        # For example: 0::/group in version 2, 4:cpu,cpuacct:/group in version 1
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if (number == "0" and not controllers) if is_unified else "cpu" in controllers.split(","):
            return group
    return "/"


def _unified_quota(folder: Path) -> float:
    """CPUs by `cpu.max` of version 2: "max 100000" or "150000 100000", in microseconds."""
    quota, period, *_ = [*"".join(_lines(folder / "cpu.max")).split(), "", ""]
    return _ratio(quota, period or "100000")


def _quota(folder: Path) -> float:
    """CPUs by the files of version 1, in microseconds; the quota -1 is unlimited."""
    quota, period = ("".join(_lines(folder / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
    return _ratio(quota, period)


def _ratio(quota: str, period: str) -> float:
    """The quota in CPUs; infinity where there is none, or a number that cannot be read."""
    try:
        cpus = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return math.inf
    return cpus if cpus > 0 else math.inf


def _lines(file: Path) -> list[str]:
    """The lines of a file of the kernel; nothing where it does not exist or may not be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
