"""Number and resources of the actors of a job, from those of the cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from d2serve.errors import CommandError


@dataclass(frozen=True)
class Actors:
    """The actors of a job.

    Attributes:
        count: number of actors.
        cpus: CPUs of each, at least 1.
        gpus: GPUs of each.
    """

    count: int
    cpus: int
    gpus: float


def plan_actors(
    nodes: Sequence[Mapping[str, float]], count: int = 0, gpus: float | None = None
) -> Actors:
    """One actor per GPU or, without GPUs, per node, unless given; they share the CPUs.

    Args:
        nodes: resources of each node, as Ray names them.
        count: number of actors; 0 to choose it.
        gpus: GPUs per actor; None for 1 where there are any.

    Raises:
        CommandError: the cluster has too few CPUs or GPUs.

    Examples:
        >>> plan_actors([{"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 2}])
        Actors(count=4, cpus=4, gpus=1.0)
    """
    nodes = [node for node in nodes if node.get("CPU", 0) >= 1]
    if not nodes:
        raise CommandError("the Ray cluster has no CPUs; start a node with --num-cpus 1 or more")
    all_gpus = sum(node.get("GPU", 0) for node in nodes)
    if gpus is None:
        gpus = float(all_gpus > 0)
    if gpus:
        nodes = [node for node in nodes if node.get("GPU", 0) >= gpus]
    most = sum(int(node["GPU"] / gpus if gpus else node["CPU"]) for node in nodes)
    chosen = count or (most if gpus else len(nodes))
    if gpus and not 1 <= chosen <= most:
        raise CommandError(
            f"--gpus-per-actor {gpus:g} with {chosen or 1} actors needs more GPUs than the "
            f"cluster has, {all_gpus:g}; use fewer --actors, or --gpus-per-actor 0 for CPUs"
        )
    per_node = -(-chosen // len(nodes))
    cpus = int(min(node["CPU"] for node in nodes)) // per_node
    if not cpus:
        raise CommandError(
            f"--actors {chosen} is more than the CPUs of the cluster allow: each of its "
            f"{len(nodes)} nodes would run {per_node}; each actor needs a CPU; use fewer"
        )
    return Actors(chosen, cpus, gpus)
