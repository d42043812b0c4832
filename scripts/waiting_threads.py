"""What every server's environment says of the network's threads while they wait for each other."""

from collections.abc import Mapping

# How often a thread of GNU's OpenMP, which is torch's on Linux, looks for work before it sleeps:
# for half a millisecond on a recent Intel. To wake up takes as long as many a layer, on a virtual
# machine above all. By default it looks for much longer, and where other processes want the same
# cores, a forward then takes many times as long. Other OpenMPs know the policy alone.
WAITING_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


def waiting_threads(given: Mapping[str, str]) -> dict[str, str]:
    """WAITING_THREADS, or nothing where an environment says of its own how threads wait."""
    return {} if WAITING_THREADS.keys() & given.keys() else dict(WAITING_THREADS)
