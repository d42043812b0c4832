"""Batches by workers with and without overlap, and by one worker beside two.

JPEGs in and RLE out by the bundled model, as in a worker of TorchServe. With overlap, requests are
decoded and encoded on threads beside the network. One worker has all threads and runs both batches
of a round; two workers have half the threads and one batch each.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection

import numpy as np
import torch
from PIL import Image

from bench.comparison import Comparison, Implementation
from bench.workloads import Scale, encode_image, jpeg_requests, pipeline_of
from tests.goldens.cases import SAMPLES, TRAINED

SMALL = ((320, 240), (240, 320))
MIXED = (*SMALL, (1920, 1080), (640, 480), (4000, 3000), (480, 640), (1280, 720), (3000, 4000))
SIZES_WH = {"small": SMALL, "mixed": MIXED}
BATCHES, QUICK_BATCHES = ("8-mixed", "16-mixed", "8-small", "1-small"), ("2-small",)
BATCHES_PER_ROUND = 2


def overlap(scale: Scale) -> Iterator[Comparison]:
    """A comparison for each batch; the first implementation is the default of `make archive`."""
    threads = torch.get_num_threads()
    for batch in QUICK_BATCHES if scale.quick else BATCHES:
        with (
            closing(Worker(threads, batch)) as one,
            closing(Worker(max(1, threads // 2), batch)) as left,
            closing(Worker(max(1, threads // 2), batch)) as right,
        ):
            implementations = {
                "2 workers, overlap": Implementation(partial(side_by_side, [left, right], True)),
                "2 workers": Implementation(partial(side_by_side, [left, right], False)),
                "1 worker, overlap": Implementation(partial(one_after_another, one, True)),
                "1 worker": Implementation(partial(one_after_another, one, False)),
            }
            images = BATCHES_PER_ROUND * int(batch.split("-")[0])
            yield Comparison("overlap", batch, implementations, "shapes", images)


def bodies_of(batch: str) -> list[bytes]:
    """JPEGs of the sample images; `8-mixed` are eight, of the sizes of SIZES_WH in turn."""
    count, sizes = batch.split("-")
    bodies = []
    for index in range(int(count)):
        sample = Image.open(SAMPLES[index % len(SAMPLES)]).convert("RGB")
        size_wh = SIZES_WH[sizes][index % len(SIZES_WH[sizes])]
        bodies.append(encode_image(np.asarray(sample.resize(size_wh))))
    return bodies


class Worker:
    """A process with the model in memory and `threads` threads."""

    def __init__(self, threads: int, batch: str) -> None:
        context = get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_work, args=(other, threads, batch), daemon=True)
        self.process.start()

    def begin(self, overlaps: bool) -> None:
        """Start a batch."""
        self.connection.send(overlaps)

    def wait(self) -> None:
        """Wait until the batch is complete."""
        self.connection.recv()

    def close(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.join()


def _work(connection: Connection, threads: int, batch: str) -> None:
    torch.set_num_threads(threads)
    detector = Scale(torch.device("cpu"), ("fp32",)).detector(TRAINED)
    pipelines = {
        overlaps: pipeline_of(detector, "shapes", threads if overlaps else 1)
        for overlaps in (False, True)
    }
    requests = jpeg_requests(bodies_of(batch))
    while True:
        try:
            overlaps = connection.recv()
        except EOFError:
            return
        connection.send([response.status for response in pipelines[overlaps].run(requests)])


def one_after_another(worker: Worker, overlaps: bool) -> None:
    """Run both batches of a round in one worker."""
    for _ in range(BATCHES_PER_ROUND):
        worker.begin(overlaps)
        worker.wait()


def side_by_side(workers: Sequence[Worker], overlaps: bool) -> None:
    """Run a batch in each of two workers."""
    for worker in workers:
        worker.begin(overlaps)
    for worker in workers:
        worker.wait()
