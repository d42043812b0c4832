"""Whole requests, bytes in and bytes out without HTTP, beside a loop over Detectron2's predictor;
overlap of decoding and encoding with the network; cost of metrics and the request log."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench import upstream
from bench.comparison import DETECTRON2, OURS, Calls, Comparison
from bench.workloads import Scale, encode_image, image_of, jpeg_requests, pipeline_of
from d2serve.detector.base import ForwardPass
from d2serve.servers.asgi.metrics import ServerMetrics
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.reporter import Reporter
from tests.goldens.cases import SAMPLES, TRAINED

SMALL = ((320, 240), (240, 320))
MIXED = (*SMALL, (1920, 1080), (640, 480), (4000, 3000), (480, 640), (1280, 720), (3000, 4000))
SIZES_WH = {"small": SMALL, "mixed": MIXED}
BATCHES, QUICK_BATCHES = ("8-mixed", "16-mixed", "8-small", "1-small"), ("2-small",)


def requests(scale: Scale) -> Iterator[Comparison]:
    """A comparison for each model, precision and number of requests together."""
    body = encode_image(image_of(scale.image_wh))
    for model in scale.models:
        baseline = upstream.Upstream(model, scale.device) if upstream.installed() else None
        for precision in scale.precisions:
            pipeline = pipeline_of(scale.detector(model, precision), model.name)
            for batch in scale.batches:
                calls: Calls = {OURS: batch_of(pipeline, [body] * batch)}
                if baseline is not None:
                    calls[DETECTRON2] = partial(_one_by_one, baseline, [body] * batch)
                facts = (f"{precision}, batch {batch}", calls)
                yield Comparison("requests", *facts, model.name, batch)
            close([pipeline])


def _one_by_one(baseline: upstream.Upstream, bodies: Sequence[bytes]) -> None:
    for body in bodies:
        baseline.respond(body)


def batch_of(pipeline: Pipeline, bodies: Sequence[bytes]) -> Callable[[], object]:
    """All requests in one batch; a run raises RuntimeError where a request is refused."""
    batch = jpeg_requests(bodies)

    def run() -> None:
        for response in pipeline.run(batch):
            if response.status != 200:
                raise RuntimeError(f"a request failed with {response.status}: {response.body!r}")

    return run


def overlap(scale: Scale) -> Iterator[Comparison]:
    """Batches that all cores decode and encode beside the network, and a single thread."""
    detector = scale.detector(TRAINED)
    pipelines = {OURS: pipeline_of(detector, "shapes")}
    pipelines["one decoding thread"] = pipeline_of(detector, "shapes", threads=1)
    for name in QUICK_BATCHES if scale.quick else BATCHES:
        bodies = bodies_of(name)
        calls: Calls = {each: batch_of(own, bodies) for each, own in pipelines.items()}
        yield Comparison("overlap", name, calls, "shapes", len(bodies))
    close(pipelines.values())


def bodies_of(batch: str) -> list[bytes]:
    """JPEGs of the sample images; `8-mixed` are eight, of the sizes of SIZES_WH in turn."""
    count, kind = batch.split("-")
    bodies = []
    for index in range(int(count)):
        sample = Image.open(SAMPLES[index % len(SAMPLES)]).convert("RGB")
        size_wh = SIZES_WH[kind][index % len(SIZES_WH[kind])]
        bodies.append(encode_image(np.asarray(sample.resize(size_wh))))
    return bodies


def telemetry(scale: Scale) -> Iterator[Comparison]:
    """Small requests, and beside them the metrics and log lines of the same requests."""
    detector, recorder = scale.detector(TRAINED), Recorder()
    pipeline = pipeline_of(detector, "shapes", reporter=recorder)
    reporter = Reporter(ServerMetrics().sink("shapes"), scale.device, "shapes", logs_requests=True)
    for batch in scale.batches:
        sent = jpeg_requests(bodies_of("1-small") * batch)
        recorder.calls.clear()
        pipeline.run(sent)
        publish = partial(replay, list(recorder.calls), reporter)
        calls: Calls = {OURS: partial(pipeline.run, sent), "telemetry": publish}
        with worker_output():
            yield Comparison("telemetry", f"batch {batch}", calls, images=batch)
    close([pipeline])


class Recorder(Reporter):
    """Keeps the arguments of each report, by the name of its method."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def report_request(self, *facts: Any) -> None:
        """Keep a request's report."""
        self.calls.append(("report_request", facts))

    def report_forward_passes(
        self, passes: Iterable[ForwardPass], queued: Callable[[], int]
    ) -> None:
        """Keep the report of forward passes."""
        self.calls.append(("report_forward_passes", (list(passes), queued)))


def replay(calls: Iterable[tuple[str, tuple[Any, ...]]], reporter: Reporter) -> None:
    """Report again what a Recorder has kept."""
    for name, facts in calls:
        getattr(reporter, name)(*facts)


def close(pipelines: Iterable[Pipeline]) -> None:
    """End the threads of pipelines."""
    for pipeline in pipelines:
        pipeline.close()


@contextmanager
def worker_output() -> Iterator[None]:
    """Log to a stream that nothing reads, instead of the terminal."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with Path(os.devnull).open("w") as stream:
        root.handlers[:] = [logging.StreamHandler(stream)]
        root.setLevel(logging.INFO)
        try:
            yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
