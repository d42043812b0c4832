"""Whole requests, bytes in and bytes out without HTTP, beside a loop over Detectron2's predictor;
and the cost of metrics and the request log beside small requests."""

import logging
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import d2serve
import torch
import yaml
from ts.metrics.caching_metric import CachingMetric
from ts.metrics.metric_type_enum import MetricTypes

from bench import upstream
from bench.comparison import DETECTRON2, OURS, Comparison, Implementation
from bench.workloads import Scale, encode_image, image_of, jpeg_requests, pipeline_of
from d2serve.serving.metrics import Publisher, Reporter
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.telemetry import HttpResponse
from tests.goldens.cases import TRAINED

# As in the Server-Timing header of the contract.
METRIC = re.compile(r'(\w+);(?:dur=([\d.]+)|desc="(\d+)")')
PARTS = ("decode", "forward", "encode")
SMALL_WH = (160, 120)


def requests(scale: Scale) -> Iterator[Comparison]:
    """A comparison for each model, precision and number of requests together."""
    body = encode_image(image_of(scale.image_wh))
    for model in scale.models:
        baseline = upstream.Upstream(model, scale.device) if upstream.installed() else None
        for precision in scale.precisions:
            pipeline = pipeline_of(scale.detector(model, precision), model.name)
            for batch in scale.batches:
                implementations = {OURS: batch_of(pipeline, [body] * batch)}
                if baseline is not None:
                    implementations[DETECTRON2] = _one_by_one(baseline, [body] * batch)
                case = f"{precision}, batch {batch}"
                yield Comparison("requests", case, implementations, model.name, batch)


def batch_of(pipeline: Pipeline, bodies: Sequence[bytes]) -> Implementation:
    """All requests in one batch; a run raises RuntimeError where a request is refused."""
    batch = jpeg_requests(bodies)
    laps: list[dict[str, float]] = []

    def run() -> None:
        start = perf_counter()
        responses = pipeline.run(batch)
        parts = parts_of(responses)
        laps.append({**parts, "rest": max(0.0, perf_counter() - start - sum(parts.values()))})

    return Implementation(run, laps)


def parts_of(responses: Sequence[HttpResponse]) -> dict[str, float]:
    """Seconds of work in each part, of all requests together, from their Server-Timing."""
    parts = dict.fromkeys(PARTS, 0.0)
    for response in responses:
        if response.status != 200:
            raise RuntimeError(f"a request failed with {response.status}: {response.body!r}")
        metrics = METRIC.findall(response.headers["Server-Timing"])
        times = {name: float(duration or count) for name, duration, count in metrics}
        # Requests that ran together report the same forward pass.
        shares = {"decode": 1.0, "forward": times["batch"], "encode": 1.0}
        for name, share in shares.items():
            parts[name] += times[name] / 1e3 / share
    return parts


def _one_by_one(baseline: upstream.Upstream, bodies: Sequence[bytes]) -> Implementation:
    """The baseline's clock starts a lap with each image; a run's lap is their sum."""
    laps: list[dict[str, float]] = []

    def run() -> None:
        for body in bodies:
            baseline.respond(body)
        images = baseline.parts.laps[-len(bodies) :]
        laps.append({name: sum(lap[name] for lap in images) for name in PARTS})

    return Implementation(run, laps)


def telemetry(scale: Scale) -> Iterator[Comparison]:
    """Small requests without, and beside them the metrics and log lines of the same requests."""
    detector = scale.detector(TRAINED)
    pipeline = pipeline_of(detector, "shapes")
    for batch in scale.batches:
        sent = jpeg_requests([encode_image(image_of(SMALL_WH))] * batch)
        reports = [response.report for response in pipeline.run(sent) if response.report]
        forwards = detector.forwards.take()
        publisher = Publisher(_declared_metrics(), "shapes")
        cpu = torch.device("cpu")
        reporter = Reporter(publisher, detector.forwards, cpu, "shapes", True)

        def publish(
            reporter: Any = reporter, forwards: Any = forwards, reports: Any = reports
        ) -> None:
            detector.forwards.take()
            for each in forwards:
                detector.forwards.add(each)
            reporter.answered(reports, 10.0, "W-9000-shapes_1.0")

        implementations = {
            OURS: Implementation(lambda sent=sent: pipeline.run(sent)),  # type: ignore[misc]
            "telemetry": Implementation(publish),
        }
        with worker_output():
            yield Comparison("telemetry", f"batch {batch}", implementations, images=batch)


@contextmanager
def worker_output() -> Iterator[None]:
    """Log as a worker does: into a pipe that another process reads."""
    reader = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(reader, stdin=subprocess.PIPE, text=True) as process:
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        root.handlers[:] = [logging.StreamHandler(process.stdin)]
        root.setLevel(logging.INFO)
        try:
            yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)


def _declared_metrics() -> dict[str, Any]:
    path = next(Path(d2serve.__file__).parent.rglob("metrics.yaml"))
    kinds = yaml.safe_load(path.read_text(encoding="utf-8"))["model_metrics"]
    return {
        metric["name"]: CachingMetric(
            metric["name"], metric["unit"], metric["dimensions"], MetricTypes(kind)
        )
        for kind, metrics in kinds.items()
        for metric in metrics
    }
