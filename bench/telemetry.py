"""What metrics and the request log cost a worker: `python -m bench.telemetry [ROUNDS]`.

Beside the time of the same small requests to the bundled model, on the CPU, without TorchServe.
"""

import io
import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from ts.metrics.caching_metric import CachingMetric
from ts.metrics.metric_type_enum import MetricTypes

import handler
from bench.accuracy import detector_in
from bench.timing import Timing, in_alternation, ratio
from handler.messages import HttpRequest, Part
from handler.model_facts import ModelFacts
from handler.pipeline import Pipeline
from handler.settings import Settings
from handler.telemetry.publisher import Publisher
from handler.telemetry.reporter import Reporter

METRICS = Path(handler.__file__).parent / "metrics.yaml"
BATCHES = (1, 8)
ROUNDS = 30
SIZE_HW = (120, 160)
CPU = torch.device("cpu")


def timings(batch: int, rounds: int = ROUNDS) -> tuple[Timing, Timing]:
    """Answering a batch of small requests, and telling of it, in alternation."""
    detector = detector_in("fp32")
    names = tuple(str(index) for index in range(detector.num_classes))
    facts = ModelFacts("shapes", names, detector.score_threshold, detector.max_detections)
    pipeline = Pipeline(detector, facts, Settings())
    requests = [HttpRequest({}, (Part("", _npy()),))] * batch
    answered = pipeline.run(requests)
    reports = [response.report for response in answered if response.report]
    forwards = detector.forwards.take()
    reporter = Reporter(Publisher(_declared(), "shapes"), detector.forwards, CPU, "shapes", True)

    def tell() -> None:
        detector.forwards.take()
        for forward in forwards:
            detector.forwards.add(forward)
        reporter.answered(reports, 10.0, "W-9000-shapes_1.0")

    with worker_output():
        answering, telling = in_alternation(
            {"answering": lambda: pipeline.run(requests), "telling": tell}, rounds
        )
    return answering, telling


@contextmanager
def worker_output() -> Iterator[None]:
    """Logs as a worker does: into a pipe that another process reads."""
    reading = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(reading, stdin=subprocess.PIPE, text=True) as reader:
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        root.handlers[:] = [logging.StreamHandler(reader.stdin)]
        root.setLevel(logging.INFO)
        try:
            yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)


def _declared() -> dict[str, Any]:
    kinds = yaml.safe_load(METRICS.read_text(encoding="utf-8"))["model_metrics"]
    return {
        metric["name"]: CachingMetric(
            metric["name"], metric["unit"], metric["dimensions"], MetricTypes(kind)
        )
        for kind, metrics in kinds.items()
        for metric in metrics
    }


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.full((*SIZE_HW, 3), 127, dtype=np.uint8))
    return file.getvalue()


def main(arguments: Sequence[str]) -> int:
    """Prints a line for each batch size."""
    rounds = int(arguments[0]) if arguments else ROUNDS
    for batch in BATCHES:
        answering, telling = timings(batch, rounds)
        share = 100 / ratio(answering, telling).median
        print(
            f"batch of {batch}: answering {answering.median * 1e3:.1f} ms, "
            f"telling {telling.median * 1e3:.3f} ms, {share:.2f}%"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
