"""Measures settings x clients in a closed loop, then the best setting in open loops."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from zipfile import is_zipfile

import yaml

from bench.load.points import Point, ServingSettings, recommend
from bench.loadgen.client import Request
from bench.loadgen.generator import ClosedLoop, OpenLoop, Traffic
from bench.loadgen.load import measure, request_once
from bench.report import progress
from bench.worker_process import unpack
from d2serve.building.packing import write_yaml
from d2serve.errors import CommandError
from d2serve.servers.torchserve.launcher.server import running_server
from d2serve.serving.model_config import ENVIRONMENT_PREFIX, MODEL_CONFIG_FILE

# Requests of each client in a point, at least.
REQUESTS_PER_CLIENT = 2
RUNNING_SERVER = "the running server"
# It would override the sweep's settings.
THREADS_VARIABLE = f"{ENVIRONMENT_PREFIX}THREADS"


class SweepPlan(NamedTuple):
    """Points to measure, `seconds` each, or longer where clients wait long. `settings` is [None]
    for a running server; `fractions` are rates of open loops, relative to the best closed one;
    `p99_ms` is the limit of `recommend`."""

    settings: Sequence[ServingSettings | None]
    clients: Sequence[int]
    fractions: Sequence[float]
    seconds: float
    warm_up_s: float
    p99_ms: float | None = None


@dataclass
class Measured:
    """Points so far, and the settings that could not be measured with the reason in a line."""

    points: list[Point] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


# Opens a server with these settings while a `with` block runs, and yields its URL.
Opener = Callable[[ServingSettings | None], AbstractContextManager[str]]


@contextmanager
def unpacked(model: Path) -> Iterator[Path]:
    """Unpack an archive into a temporary folder of its name, which TorchServe serves as well.
    Raises CommandError for another file, or where the environment overrides the settings."""
    if THREADS_VARIABLE in os.environ:
        raise CommandError(f"{THREADS_VARIABLE} is set and overrides the sweep's threads; unset it")
    if not is_zipfile(model):
        raise CommandError(f"--model: {model} is not an archive; `make archive` builds one")
    with tempfile.TemporaryDirectory(prefix="d2serve-load-") as folder:
        yield unpack(model, Path(folder) / model.stem)


def configure(folder: Path, settings: ServingSettings) -> None:
    """Write the settings into an unpacked model; its other keys stay."""
    file = folder / MODEL_CONFIG_FILE
    content = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    changed = settings.as_config()
    handler = {**content.get("handler", {}), **changed["handler"]}
    write_yaml(file, {**content, **changed, "handler": handler})


def opener_of(model: Path, logs: Path, url: str | None) -> Opener:
    """Serve an unpacked model, whose model-config.yaml is rewritten for each setting; or use the
    server at a URL as it is."""

    @contextmanager
    def opened(settings: ServingSettings | None) -> Iterator[str]:
        if url or not settings:
            yield url or ""
            return
        configure(model, settings)
        with running_server(model, log_dir=logs) as server:
            yield f"{server.url}/predictions/{server.model_name}"

    return opened


def sweep(
    plan: SweepPlan, requests: Sequence[Request], open_server: Opener, measured: Measured
) -> None:
    """Measure all points into `measured`, which an interrupted sweep keeps; where a server cannot
    start, the other settings are still measured."""
    with ExitStack() as stack:
        last: tuple[ServingSettings | None, str] | None = None

        def measure_all(settings: ServingSettings | None, traffics: Sequence[Traffic]) -> None:
            nonlocal last
            progress(f"{settings or RUNNING_SERVER}: starting")
            try:
                if last is None or last[0] != settings:
                    stack.close()
                    last = None
                    last = settings, stack.enter_context(open_server(settings))
                _, response_s = request_once(last[1], requests[0])
                for traffic in traffics:
                    progress(f"{settings or RUNNING_SERVER}: {traffic}")
                    clients = traffic.clients if isinstance(traffic, ClosedLoop) else 1
                    wait_s = response_s * clients
                    seconds = max(plan.seconds, REQUESTS_PER_CLIENT * wait_s)
                    times = (seconds, max(plan.warm_up_s, wait_s))
                    load = measure(last[1], requests, traffic, *times)
                    measured.points.append(Point(settings, traffic, load))
                    response_s = 1 / load.requests_per_s if load.requests_per_s else response_s
            except CommandError as error:
                measured.failures[str(settings or RUNNING_SERVER)] = str(error).splitlines()[0]

        for settings in plan.settings:
            measure_all(settings, [ClosedLoop(clients) for clients in plan.clients])
        chosen = recommend(measured.points, plan.p99_ms)
        if chosen:
            rate = chosen.best.load.requests_per_s
            measure_all(chosen.best.settings, [OpenLoop(each * rate) for each in plan.fractions])
