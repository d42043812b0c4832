"""Decoding, forward and encoding alone: an archive's pipeline in a process without a server.

Runs in a process of its own, with the settings and the threads of a worker:

python -m bench.peers.bare ARCHIVE --batch 8 --seconds 10 PICTURE [PICTURE ...]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from bench.load.traffic import shuffled_rounds
from bench.peers.models import REPOSITORY
from handler.loading import load_pipeline
from handler.messages import HttpRequest, Part
from handler.pipeline import Pipeline
from scripts.errors import CommandError, run
from scripts.waiting_threads import waiting_threads


@dataclass(frozen=True)
class Bare:
    """Seconds that each batch took, one after the other, and how many pictures are in one."""

    batch: int
    seconds: tuple[float, ...]

    @property
    def images_per_s(self) -> float:
        """Over all batches."""
        return self.batch * len(self.seconds) / sum(self.seconds)

    def percentile_ms(self, percent: int) -> float:
        """Of one batch."""
        return 1000 * float(np.percentile(self.seconds, percent))


def measure_bare(
    archive: Path, pictures: Sequence[Path], batch: int, seconds: float, rest_ms: float = 0
) -> Bare:
    """Starts this module on the archive, waits for it to load and to run, and reads its answer.

    Args:
        archive: with the settings of a worker.
        pictures: JPEG files.
        batch: pictures at once.
        seconds: of all batches together.
        rest_ms: how long nothing is computed before each batch.

    Raises:
        CommandError: it failed.
    """
    command = [
        *(sys.executable, "-m", "bench.peers.bare", str(archive), "--batch", str(batch)),
        *("--seconds", str(seconds), "--rest-ms", str(rest_ms), *map(str, pictures)),
    ]
    environment = waiting_threads(os.environ) | dict(os.environ)
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise CommandError(f"the bare loop failed:\n{done.stderr.strip()}")
    measured = json.loads(done.stdout)
    return Bare(measured["batch"], tuple(measured["seconds"]))


def run_bare(
    pipeline: Pipeline, bodies: Sequence[bytes], batch: int, seconds: float, rest_ms: float = 0
) -> Bare:
    """Batches of JPEGs for so many seconds, at least one; one more before does not count, nor does
    the rest before each.

    Raises:
        CommandError: a picture was refused.
    """
    requests = map(_request, shuffled_rounds(bodies))
    _seconds_of(pipeline, list(islice(requests, batch)))
    taken: list[float] = []
    while sum(taken) < seconds:
        time.sleep(rest_ms / 1000)
        taken.append(_seconds_of(pipeline, list(islice(requests, batch))))
    return Bare(batch, tuple(taken))


def _seconds_of(pipeline: Pipeline, requests: Sequence[HttpRequest]) -> float:
    start = time.perf_counter()
    responses = pipeline.run(requests)
    taken = time.perf_counter() - start
    refusals = [response.body for response in responses if response.status != HTTPStatus.OK]
    if refusals:
        raise CommandError(f"the bare loop refused a picture: {refusals[0].decode()}")
    return taken


def _request(body: bytes) -> HttpRequest:
    headers = {"content-type": "image/jpeg", "accept": "application/json"}
    return HttpRequest(headers, (Part("image/jpeg", body),))


def main(arguments: Sequence[str]) -> int:
    """Prints a `Bare` as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rest-ms", type=float, default=0)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="d2serve-bare-") as folder:
        with zipfile.ZipFile(given.archive) as packed:
            packed.extractall(folder)
        pipeline = load_pipeline(Path(folder), torch.device("cpu"), "bare")
    bodies = [picture.read_bytes() for picture in given.pictures]
    print(json.dumps(asdict(run_bare(pipeline, bodies, given.batch, given.seconds, given.rest_ms))))
    return 0


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
