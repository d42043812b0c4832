"""The two processes that are looked at."""

import itertools
import subprocess
import sys
from pathlib import Path

import httpx

from bench.clients import send_all
from bench.memory.resident import Sample, peak, sampling
from bench.progress import progress
from scripts.errors import CommandError
from scripts.torchserve import Server
from tests.goldens.cases import GoldenModel

EVERY_S = 0.1


def bare_peak(model: GoldenModel, checkpoint: Path, picture: Path, batch: int, threads: int) -> int:
    """Bytes of the process that has the model alone.

    Raises:
        CommandError: it failed.
    """
    words = (str(model.config), str(checkpoint), str(picture), str(batch), str(threads))
    process = subprocess.Popen([sys.executable, "-m", "bench.memory.bare", *words])
    with sampling(process.pid) as samples:
        if process.wait() != 0:
            raise CommandError(f"bench.memory.bare ended with {process.returncode}; see above")
    return peak(samples)


def worker_samples(server: Server, body: bytes, requests: int, clients: int) -> list[Sample]:
    """The worker's memory from before the first request to the last."""
    done = itertools.count(1)
    finished = 0
    with progress() as tell:

        def after_each() -> None:
            nonlocal finished
            finished = next(done)
            tell(f"{requests} requests", finished / requests)

        bodies = itertools.repeat(body, requests)
        with sampling(worker_pid(server), lambda: finished, EVERY_S) as samples:
            send_all(f"{server.url}/predictions/{server.model_name}", bodies, clients, after_each)
    return [*samples, Sample(finished, samples[-1].resident)]


def worker_pid(server: Server) -> int:
    """The only worker's process, as TorchServe's management API tells it."""
    answer = httpx.get(f"{server.management_url}/models/{server.model_name}", trust_env=False)
    [model] = answer.raise_for_status().json()
    [worker] = model["workers"]
    return int(worker["pid"])
