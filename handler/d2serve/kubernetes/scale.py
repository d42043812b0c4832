"""The number and size of the replicas of a Ray Serve application."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from d2serve.errors import CommandError
from d2serve.kubernetes.models import Model

# With one, a rolling update would be an outage: Ray Serve stops the old replica first.
DEFAULT_REPLICAS = 2
DEFAULT_CPUS = 2
# Ray's processes on a node and the object store, which requests hardly use.
NODE_BYTES = 2 << 30
# torch, a network of usual size, and the images of two batches.
MODEL_BYTES = 2 << 30
GIB = 1 << 30


@dataclass(frozen=True)
class Scale:
    """Replicas of each model.

    Attributes:
        min_replicas: number of replicas that always run.
        max_replicas: number of replicas under load; the same as `min_replicas` for a fixed number.
        cpus: CPUs per replica; None for the `threads` of each archive, else 2.
        gpus: GPUs per replica: 0, 1 or a part of one.
        memory_gib: memory of a worker node in GiB; None to derive it from the archives.

    Raises:
        CommandError: a value is out of range.
    """

    min_replicas: int = DEFAULT_REPLICAS
    max_replicas: int = DEFAULT_REPLICAS
    cpus: int | None = None
    gpus: float = 0
    memory_gib: int | None = None

    def __post_init__(self) -> None:
        if self.max_replicas < self.min_replicas:
            raise CommandError(
                f"--max-replicas is {self.max_replicas}, expected at least the {self.min_replicas} "
                "of --min-replicas"
            )

    @classmethod
    def of(cls, replicas: int | None, least: int | None, most: int | None, **size: Any) -> "Scale":
        """The scale by the options --replicas, or --min-replicas and --max-replicas.

        Raises:
            CommandError: both are given, or a value is out of range.
        """
        if replicas is not None and (least, most) != (None, None):
            raise CommandError(
                f"--replicas {replicas} is a fixed number, and --min-replicas and --max-replicas "
                "are limits; give either"
            )
        if replicas is not None:
            return cls(replicas, replicas, **size)
        least = DEFAULT_REPLICAS if least is None else least
        return cls(least, max(DEFAULT_REPLICAS, least) if most is None else most, **size)

    @property
    def is_fixed(self) -> bool:
        """True if the number of replicas does not follow the load."""
        return self.min_replicas == self.max_replicas

    def cpus_of(self, model: Model) -> int:
        """The CPUs of a replica."""
        return self.cpus or model.settings.threads or DEFAULT_CPUS

    @property
    def replicas_per_node(self) -> int:
        """Replicas on a worker node: several share its GPU, else there is one."""
        return max(1, int(1 / self.gpus)) if self.gpus else 1

    def nodes(self, models: Sequence[Model]) -> tuple[int, int]:
        """The minimum and maximum number of worker nodes for all replicas of all models."""
        least, most = (
            math.ceil(replicas * len(models) / self.replicas_per_node)
            for replicas in (self.min_replicas, self.max_replicas)
        )
        return least, most

    def node_cpus(self, models: Sequence[Model]) -> int:
        """The CPUs of a worker node, which runs replicas of any model."""
        return self.replicas_per_node * max(self.cpus_of(model) for model in models)

    def node_gib(self, models: Sequence[Model]) -> int:
        """The memory of a worker node in GiB: its replicas, the bodies in their queues, and Ray."""
        if self.memory_gib:
            return self.memory_gib
        queued = max(model.settings.max_queued_bytes for model in models)
        return math.ceil((NODE_BYTES + self.replicas_per_node * (MODEL_BYTES + queued)) / GIB)
