"""How many CPU threads the network of one of several workers takes."""

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
