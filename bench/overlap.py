"""Times whole batches through workers with and without overlap, and one worker beside two.

The bundled model, JPEGs in and RLE out, as a worker of TorchServe runs them but for TorchServe.
With overlap, requests are decoded and encoded on threads beside the network; without, all is done
in one thread. One worker takes all threads and both batches of a round, two take half the threads
and one batch each. All take turns within each round.

python -m bench.overlap [--threads 4] [--rounds 7] [--batches 8-mixed 16-mixed 8-small 1-small]
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from PIL import Image

from bench.timing import Timing, in_alternation, ratio
from handler.detector.native import NativeDetector
from handler.executors import start_executor
from handler.messages import HttpRequest, Part
from handler.model_facts import ModelFacts
from handler.pipeline import Pipeline
from handler.rcnn.build import build_model
from handler.rcnn.checkpoint import read_checkpoint
from handler.rcnn.config import load_config
from handler.settings import Settings

SHAPES = Path(__file__).resolve().parent.parent / "models/shapes"
SMALL = ((320, 240), (240, 320))
MIXED = (*SMALL, (1920, 1080), (640, 480), (4000, 3000), (480, 640), (1280, 720), (3000, 4000))
SIZES_WH = {"small": SMALL, "mixed": MIXED}
# Both get the same work, so a round is two batches.
BATCHES_A_ROUND = 2


def requests(batch: str) -> list[HttpRequest]:
    """JPEGs of the sample pictures, such as `8-mixed`: eight, of the sizes in SIZES_WH in turn."""
    count, sizes = batch.split("-")
    samples = sorted((SHAPES / "samples").iterdir())
    return [
        _request(samples[index % len(samples)], SIZES_WH[sizes][index % len(SIZES_WH[sizes])])
        for index in range(int(count))
    ]


def _request(sample: Path, size_wh: tuple[int, int]) -> HttpRequest:
    file = io.BytesIO()
    Image.open(sample).convert("RGB").resize(size_wh).save(file, "JPEG", quality=90)
    return HttpRequest({}, (Part("image/jpeg", file.getvalue()),))


class Worker:
    """A process with the model in memory.

    Args:
        threads: of the network, and of decoding where there is overlap.
        batch: see `requests`.
    """

    def __init__(self, threads: int, batch: str) -> None:
        context = get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_work, args=(other, threads, batch), daemon=True)
        self.process.start()

    def begin(self, overlaps: bool) -> None:
        """Starts a batch."""
        self.connection.send(overlaps)

    def wait(self) -> None:
        """Until the batch is answered."""
        self.connection.recv()

    def stop(self) -> None:
        """Ends the process."""
        self.connection.close()
        self.process.join()


def _work(connection: Connection, threads: int, batch: str) -> None:
    torch.set_num_threads(threads)
    settings = Settings()
    config = load_config(SHAPES / "config.yaml")
    model = build_model(config, read_checkpoint(SHAPES / "model_final.pth"), torch.device("cpu"))
    detector = NativeDetector(model, torch.device("cpu"), settings)
    names = tuple(str(index) for index in range(detector.num_classes))
    facts = ModelFacts("shapes", names, detector.score_threshold, detector.max_detections)
    pipelines = {
        overlaps: Pipeline(detector, facts, settings, start_executor(threads if overlaps else 1))
        for overlaps in (False, True)
    }
    waiting = requests(batch)
    while True:
        try:
            overlaps = connection.recv()
        except EOFError:
            return
        responses = pipelines[overlaps].run(waiting)
        connection.send([response.status for response in responses])


def one_after_another(worker: Worker, overlaps: bool) -> None:
    """Both batches of a round by one worker."""
    for _ in range(BATCHES_A_ROUND):
        worker.begin(overlaps)
        worker.wait()


def side_by_side(workers: Sequence[Worker], overlaps: bool) -> None:
    """A batch by each of two workers."""
    for worker in workers:
        worker.begin(overlaps)
    for worker in workers:
        worker.wait()


def timings(batch: str, threads: int, rounds: int) -> list[Timing]:
    """One for each way of running two batches; the first is the one to compare with."""
    alone = Worker(threads, batch)
    pair = [Worker(max(1, threads // BATCHES_A_ROUND), batch) for _ in range(BATCHES_A_ROUND)]
    ways: dict[str, Callable[[], object]] = {
        "1 worker": partial(one_after_another, alone, False),
        "1 worker, overlap": partial(one_after_another, alone, True),
        "2 workers": partial(side_by_side, pair, False),
        "2 workers, overlap": partial(side_by_side, pair, True),
    }
    try:
        return in_alternation(ways, rounds)
    finally:
        for worker in (alone, *pair):
            worker.stop()


def main(arguments: Sequence[str]) -> int:
    """Prints pictures a second, and of each round how many times as long the first way took."""
    parser = argparse.ArgumentParser(description="batches with and without overlap")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    default = ["8-mixed", "16-mixed", "8-small", "1-small"]
    parser.add_argument("--batches", nargs="+", default=default)
    given = parser.parse_args(arguments)
    for batch in given.batches:
        print(f"{batch}: {given.threads} threads, load {os.getloadavg()[0]:.1f}")
        pictures = BATCHES_A_ROUND * int(batch.split("-")[0])
        base, *others = timings(batch, given.threads, given.rounds)
        for timing in (base, *others):
            gain = ratio(base, timing)
            spread = f"{gain.quartiles[0]:.2f}..{gain.quartiles[1]:.2f}"
            rate = pictures / timing.median
            print(f"  {timing.name:20} {rate:7.2f} pictures/s  {gain.median:5.2f}x ({spread})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
