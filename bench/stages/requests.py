"""Whole requests, bytes in and bytes out without HTTP, beside a loop over upstream's predictor."""

import re
from collections.abc import Iterator, Sequence
from time import perf_counter

from bench import upstream
from bench.contest import DETECTRON2, OURS, Contest, Contestant
from bench.scale import Scale, picture_of
from bench.stages.decode import encoded
from handler.messages import HttpRequest, HttpResponse, Part
from handler.model_facts import ModelFacts
from handler.pipeline import Pipeline
from handler.settings import Settings
from tests.goldens.cases import GoldenModel

STAGE = "requests"
JPEG = "image/jpeg"
# As the contract has them in Server-Timing.
METRIC = re.compile(r'(\w+);(?:dur=([\d.]+)|desc="(\d+)")')
PARTS = ("decode", "forward", "encode")


def contests(scale: Scale) -> Iterator[Contest]:
    """One for each model, precision and number of requests together."""
    for model in scale.models:
        body = encoded(picture_of(scale.picture_wh), "JPEG")
        peer = upstream.Upstream(model, scale.device) if upstream.installed() else None
        for precision in scale.precisions:
            pipeline = pipeline_of(scale, model, precision)
            for batch in scale.batches:
                contestants = {OURS: ours(pipeline, [body] * batch)}
                if peer is not None:
                    contestants[DETECTRON2] = _theirs(peer, [body] * batch)
                case = f"{precision}, batch {batch}"
                yield Contest(STAGE, case, contestants, model.name, batch)


def pipeline_of(scale: Scale, model: GoldenModel, precision: str) -> Pipeline:
    """What a worker has, apart from the server."""
    detector = scale.detector(model, precision)
    names = tuple(f"class {index}" for index in range(detector.num_classes))
    facts = ModelFacts(model.name, names, detector.score_threshold, detector.max_detections)
    return Pipeline(detector, facts, Settings(precision=precision))


def ours(pipeline: Pipeline, bodies: Sequence[bytes]) -> Contestant:
    """All requests in one batch, as TorchServe hands them over.

    A run raises RuntimeError where a request is refused.
    """
    requests = [HttpRequest({"content-type": JPEG}, (Part(JPEG, body),)) for body in bodies]
    laps: list[dict[str, float]] = []

    def run() -> None:
        start = perf_counter()
        responses = pipeline.run(requests)
        parts = parts_of(responses)
        laps.append({**parts, "rest": max(0.0, perf_counter() - start - sum(parts.values()))})

    return Contestant(run, laps)


def parts_of(responses: Sequence[HttpResponse]) -> dict[str, float]:
    """Seconds of work in each part, of all requests together, by their Server-Timing."""
    parts = dict.fromkeys(PARTS, 0.0)
    for response in responses:
        if response.status != 200:
            raise RuntimeError(f"a request got {response.status}: {response.body!r}")
        metrics = METRIC.findall(response.headers["Server-Timing"])
        times = {name: float(duration or count) for name, duration, count in metrics}
        # Those that ran together report the same forward.
        shares = {"decode": 1.0, "forward": times["batch"], "encode": 1.0}
        for name, share in shares.items():
            parts[name] += times[name] / 1e3 / share
    return parts


def _theirs(peer: "upstream.Upstream", bodies: Sequence[bytes]) -> Contestant:
    """One after another. Its clock begins a lap with each picture; a run's lap is their sum."""
    laps: list[dict[str, float]] = []

    def run() -> None:
        for body in bodies:
            peer.answer(body)
        pictures = peer.parts.laps[-len(bodies) :]
        laps.append({name: sum(lap[name] for lap in pictures) for name in PARTS})

    return Contestant(run, laps)
