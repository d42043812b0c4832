"""Ours and its peers as running servers.

Each has one worker and our batch delay, and our batch size unless it loops over the batch. Waiting
threads sleep soon in all of them, which is `make serve`'s setting and not their own: with threads
that spin on the peers would depend on whatever else the machine does. OMP_WAIT_POLICY or
GOMP_SPINCOUNT, where set, hold for all.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers.models import Model
from bench.peers.packing import (
    LOOPING_BATCH,
    naive_archive,
    object_detector_archive,
    toolkit_package,
)
from scripts.archive import ONE_WORKER, SERVING_DEFAULTS, build_archive
from scripts.aws.environment import SINGLE_WORKER, container_environment
from scripts.sagemaker_container import running_container
from scripts.torchserve import running_server

READY_WITHIN_S = 300
OPENMP = ("OMP_", "GOMP_")


@dataclass(frozen=True)
class Peer:
    """Another server of the same model.

    Attributes:
        drops: what of our answer its answer lacks.
        models: which models it can serve.
        serve: serves one in a folder of its own while the `with` block runs; gives the URL that
            takes pictures.
    """

    name: str
    drops: str
    models: tuple[str, ...]
    serve: Callable[[Model, Path], AbstractContextManager[str]]


def our_archive(model: Model, precision: str, folder: Path) -> Path:
    """What `make archive` builds, in one of our precisions."""
    handler = SERVING_DEFAULTS["handler"] | {"precision": precision}
    return build_archive(
        model.config,
        model.checkpoint,
        "ours",
        folder,
        classes=model.classes,
        serving={"handler": handler, **ONE_WORKER},
    )


@contextmanager
def ours(archive: Path, folder: Path) -> Iterator[str]:
    """As `make serve` serves it, behind its front door."""
    with _torchserve(archive, folder, front_door=True) as url:
        yield url


@contextmanager
def naive(model: Model, folder: Path) -> Iterator[str]:
    """Peer (a), behind the same config.properties as ours."""
    with _torchserve(naive_archive(model, folder), folder) as url:
        yield url


@contextmanager
def object_detector(_model: Model, folder: Path) -> Iterator[str]:
    """Peer (c), behind the same config.properties as ours, with torchvision's own network."""
    with _torchserve(object_detector_archive(folder), folder) as url:
        yield url


@contextmanager
def toolkit(model: Model, folder: Path) -> Iterator[str]:
    """Peer (b), in AWS's container with our limits, and its own defaults beyond."""
    package = toolkit_package(model, folder)
    with running_container(package, _container(), log_dir=folder / "logs") as container:
        container.wait_until_healthy(READY_WITHIN_S)
        yield f"{container.url}/invocations"


@contextmanager
def _torchserve(archive: Path, folder: Path, front_door: bool = False) -> Iterator[str]:
    with running_server(
        archive, log_dir=folder / "logs", ready_within_s=READY_WITHIN_S, front_door=front_door
    ) as server:
        yield f"{server.url}/predictions/{server.model_name}"


def _container() -> dict[str, str]:
    """Without a front door, which a script has no worker of ours to open, and with what our own
    environment says of threads, because unlike TorchServe's a container's inherits nothing."""
    threads = {name: value for name, value in os.environ.items() if name.startswith(OPENMP)}
    own = {"SAGEMAKER_TS_BATCH_SIZE": str(LOOPING_BATCH), **SINGLE_WORKER, **threads}
    environment = container_environment("transform", own)
    return {name: value for name, value in environment.items() if not name.endswith("ADDRESS")}


PEERS = {
    peer.name: peer
    for peer in (
        Peer("naive", "nothing", ("shapes", "r50"), naive),
        Peer("toolkit", "nothing", ("shapes", "r50"), toolkit),
        Peer("object_detector", "the masks", ("r50",), object_detector),
    )
}
