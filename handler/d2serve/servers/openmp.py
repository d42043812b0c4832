"""Settings of OpenMP, which must be in the environment before a process imports torch."""

from collections.abc import Mapping

# How long a thread of GNU OpenMP, which torch uses on Linux, spins before it sleeps: for 0.5 ms on
# a recent Intel CPU, 0.24 ms on an AMD EPYC. To wake up takes as long as many a layer, in virtual
# machines above all. By default threads spin for much longer; when other processes need the same
# cores, a forward pass then takes many times as long. Other OpenMP runtimes know only the policy.
OPENMP_SETTINGS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


def openmp_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """OPENMP_SETTINGS, or nothing if the environment has one of them already."""
    return {} if OPENMP_SETTINGS.keys() & environment.keys() else dict(OPENMP_SETTINGS)
