"""How many CPU threads one of several workers takes, for the network and beside it."""

import os
from collections.abc import Mapping

import torch

# Whoever sets it has decided already, and torch follows it.
OPENMP_THREADS = "OMP_NUM_THREADS"


def take_threads(threads: int, workers: int, environment: Mapping[str, str] = os.environ) -> None:
    """Sets torch's threads in this process.

    Each worker's torch would take all cores, and threads that wait for each other keep them busy.

    Args:
        threads: how many; 0 takes this worker's share, so that workers x threads <= cores.
        workers: processes that share the machine, at least 1.
        environment: where OMP_NUM_THREADS would be.
    """
    if threads:
        torch.set_num_threads(threads)
    elif OPENMP_THREADS not in environment:
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))


def decode_threads(threads: int, workers: int) -> int:
    """How many threads decode and encode requests beside the network, at least 1.

    Args:
        threads: how many; 0 is this worker's share of the cores.
        workers: processes that share the machine, at least 1.
    """
    return threads or max(1, (os.cpu_count() or 1) // workers)
