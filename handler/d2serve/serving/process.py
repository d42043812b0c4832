"""Set-up of a worker process: huge pages, freed memory, garbage collection and CPU threads."""

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping

import cv2
import torch

from d2serve.serving.cpu import available_cpus

# Read by torch at its first allocation: request huge pages for large allocations.
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
# Settings of GNU's libc by mallopt(3): one heap for all threads, which does not shrink, because the
# heaps of further threads end at 64 MB; it holds the feature maps of an image. Larger blocks, of
# batches and of decoded images, would leave gaps there. Libraries before 2.35 accept 32 MB.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
NEVER, LARGEST_KEPT_BYTES, OLD_LARGEST_KEPT_BYTES = -1, 128 << 20, 32 << 20
# The user's settings of it.
ALLOCATOR_VARIABLES, TUNABLES = "MALLOC_", "GLIBC_TUNABLES"
# Sets torch's threads; d2serve does not override it.
OPENMP_THREADS = "OMP_NUM_THREADS"
# torch's number before d2serve changes it, because a process may load several models.
OWN_THREADS = torch.get_num_threads()


def enable_huge_pages(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let torch use pages of 2 MB in this process, unless the environment sets it already.

    Each forward pass allocates large feature maps. With pages of 4 kB, Linux provides a hundred
    thousand of them for one image.
    """
    environment.setdefault(HUGE_PAGES, "1")


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Keep the memory that forward passes free for the next ones, with GNU's libc.

    By default it returns large blocks to the system, which has to provide and clear new ones in the
    next pass. Call it before the threads start that compute: the ones that exist keep their heaps.

    Args:
        environment: settings of the libc's allocator in it win.

    Returns:
        Whether memory is kept.
    """
    if any(name.startswith(ALLOCATOR_VARIABLES) for name in environment):
        return False
    if "glibc.malloc" in environment.get(TUNABLES, ""):
        return False
    change = _libc_function("mallopt")
    if change is None:
        return False
    is_set = change(M_ARENA_MAX, 1) and change(M_TRIM_THRESHOLD, NEVER)
    sizes = (LARGEST_KEPT_BYTES, OLD_LARGEST_KEPT_BYTES)
    return bool(is_set) and any(change(M_MMAP_THRESHOLD, size) for size in sizes)


def release_freed_memory() -> None:
    """Return the memory to the system that this process has freed but keeps, with GNU's libc."""
    trim = _libc_function("malloc_trim")
    if trim is not None:
        trim(0)


def freeze_objects() -> None:
    """Exclude the objects that exist now from later garbage collections.

    A collection of all objects of torch and its libraries stops a process for 0.1 s.
    """
    gc.collect()
    gc.freeze()


def _libc_function(name: str) -> Callable[..., int] | None:
    """A function that other libraries than GNU's lack."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def set_num_threads(
    threads: int,
    workers: int,
    environment: Mapping[str, str] = os.environ,
    cpus: Callable[[], int] = available_cpus,
) -> None:
    """Set torch's number of threads in this process, and keep OpenCV from starting its own.

    By default torch uses all cores in each worker, even those beyond a container's quota, and
    threads that wait for each other keep the cores busy. A thread of OpenCV, which swaps the color
    channels of an image, waits for more work on a core that the forward pass needs: one of the
    network's threads then starts on the core of another.

    Args:
        threads: number of threads; 0 divides the available CPUs among the workers, or torch's own
            number where that is lower, as on cores that run two threads each.
        workers: number of processes on this machine, at least 1.
        environment: may contain OMP_NUM_THREADS, which wins over 0.
        cpus: returns the number of available CPUs.
    """
    cv2.setNumThreads(1)
    if threads:
        torch.set_num_threads(threads)
    elif OPENMP_THREADS not in environment:
        torch.set_num_threads(max(1, min(OWN_THREADS, cpus()) // workers))


def decode_threads(threads: int, workers: int, cpus: Callable[[], int] = available_cpus) -> int:
    """The number of threads that decode and encode requests while the network runs, at least 1.

    Args:
        threads: number of threads; 0 divides the available CPUs among the workers.
        workers: number of processes on this machine, at least 1.
        cpus: returns the number of available CPUs.
    """
    return threads or max(1, cpus() // workers)
