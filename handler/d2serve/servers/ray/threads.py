"""The CPU threads of a replica, which must be set before the process imports torch."""

import math
from collections.abc import MutableMapping

from d2serve.servers.openmp import openmp_settings
from d2serve.servers.ray.options import ApplicationOptions

OPENMP_THREADS = "OMP_NUM_THREADS"


def replica_cpus(options: ApplicationOptions, assigned: float, available: int) -> int:
    """The number of CPUs that a replica uses, at least 1.

    Args:
        options: the arguments of the application.
        assigned: CPUs that Ray has reserved for the replica.
        available: CPUs that the process may use; see `available_cpus`.

    Examples:
        >>> options = ApplicationOptions("shapes.mar", num_replicas=2)
        >>> replica_cpus(options, assigned=1, available=8)
        4
        >>> replica_cpus(options, assigned=16, available=8)
        8
    """
    if options.num_cpus is None and assigned <= 1:
        return max(1, available // options.fewest_replicas)
    return max(1, min(math.ceil(assigned), available))


def prepare_environment(environment: MutableMapping[str, str]) -> None:
    """Set OpenMP up before torch is imported.

    Ray sets the number of threads to the CPUs of the actor, which is one by default.
    """
    environment.pop(OPENMP_THREADS, None)
    environment.update(openmp_settings(environment))
