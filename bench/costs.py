"""Costs of each server beside the bare pipeline: memory at rest, time from the command to the first
prediction, and overhead per request of a single client. One server runs at a time."""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml

from bench.arguments import add_target, parser_of, positive, whole
from bench.installed import extra_bytes
from bench.loadgen.client import Request
from bench.loadgen.generator import ClosedLoop
from bench.loadgen.load import image_requests, measure, request_once
from bench.ray.bodies import SIZES_BYTES, size_name, write_bodies
from bench.served import IN_RAY_ENVIRONMENT, RAY, RAY_PROXY, TORCHSERVE, by_command
from bench.worker_process import Worker, running_worker, unpack
from d2serve.aws import containers, local_container, ray_container, ray_image
from d2serve.aws.ray_container import session_members
from d2serve.building.package import Container, build_package
from d2serve.building.packing import write_yaml
from d2serve.client.images import find_images
from d2serve.errors import CommandError
from d2serve.serving.model_config import MODEL_CONFIG_FILE
from tests.serving.ray_server import RAY_PYTHON

VENV_PYTHON = RAY_PYTHON.parents[2] / ".venv" / "bin" / "python"
CONTAINER_PYTHON = local_container.ENVIRONMENT / "bin" / "python"
READY_WITHIN_S, TIMEOUT_S = 300.0, 300.0
# For what the start has left behind, and then the metrics of the first requests.
REST_S = 3.0
ALTERNATIONS, WARM_UP_S, MIN_REQUESTS = 3, 0.2, 10
ASGI = "asgi"
SAGEMAKER_RAY, SAGEMAKER_PYTORCH = "sagemaker-ray", "sagemaker-pytorch"


class Running(NamedTuple):
    """The URL of a running server's predictions, and the leader of its processes."""

    url: str
    pid: int


class Subject(NamedTuple):
    """A server to measure: its column of the table, the Python of its environment, the extra that
    it needs (empty for a container image), and its start from a folder."""

    title: str
    python: Path
    extra: str
    serve: Callable[[Path], AbstractContextManager[Running]]


class Cost(NamedTuple):
    """Memory in MB, seconds from the command to the first prediction, and by size of a body the
    median latency in ms through the server and of the bare pipeline."""

    memory_mb: float
    start_s: float
    latency_ms: Mapping[str, float]
    bare_ms: Mapping[str, float]

    def overhead_ms(self, size: str) -> float:
        """Latency beyond that of the bare pipeline."""
        return self.latency_ms[size] - self.bare_ms[size]


@contextmanager
def command(server: str, python: Path, folder: Path) -> Iterator[Running]:
    """Run `d2serve serve`; `server` is a name of SUBJECTS."""
    known = IN_RAY_ENVIRONMENT.get(server, partial(by_command, server=server, python=python))
    with known(folder / "shapes", folder / "logs") as served:
        yield Running(served.url, served.handle.process.pid)


@contextmanager
def sagemaker(container: Container, folder: Path) -> Iterator[Running]:
    """Run a package in the imitation of AWS's container, with one worker or replica."""
    package, logs = folder / f"{container.value}.tar.gz", folder / "logs"
    if container is Container.RAY:
        variables = ray_image.container_environment("realtime", {})
        running = ray_container.running_ray_container(package, variables, log_dir=logs)
    else:
        variables = containers.container_environment("realtime", containers.SINGLE_WORKER)
        running = local_container.running_container(package, variables, log_dir=logs)
    with running as started:
        started.wait_until_healthy(READY_WITHIN_S)
        yield Running(f"{started.url}/invocations", started.process.pid)


SUBJECTS: Mapping[str, Subject] = {
    ASGI: Subject("ASGI server", RAY_PYTHON, "asgi", partial(command, ASGI, RAY_PYTHON)),
    RAY: Subject("Ray Serve, HAProxy", RAY_PYTHON, "ray", partial(command, RAY, RAY_PYTHON)),
    RAY_PROXY: Subject(
        "Ray Serve, its own proxy", RAY_PYTHON, "ray", partial(command, RAY_PROXY, RAY_PYTHON)
    ),
    TORCHSERVE: Subject(
        "TorchServe, one worker",
        VENV_PYTHON,
        "torchserve",
        partial(command, TORCHSERVE, VENV_PYTHON),
    ),
    SAGEMAKER_RAY: Subject(
        "SageMaker's Ray container", RAY_PYTHON, "", partial(sagemaker, Container.RAY)
    ),
    SAGEMAKER_PYTORCH: Subject(
        "SageMaker's PyTorch container, one worker",
        CONTAINER_PYTHON,
        "",
        partial(sagemaker, Container.PYTORCH),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write costs.json and .md with the table of docs/choosing.md."""
    parser = parser_of("costs", __doc__)
    add_target(parser, url=False)
    names = list(SUBJECTS)
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="servers")
    parser.add_argument("--seconds", type=positive, default=1.0, help="of a measurement")
    parser.add_argument("--rounds", type=whole, default=1, help="starts of each server")
    given = parser.parse_args(arguments)
    costs: dict[str, list[Cost]] = {name: [] for name in given.only}
    with tempfile.TemporaryDirectory(prefix="d2serve-costs-") as temporary:
        folder = Path(temporary)
        bodies = write_bodies(folder, find_images(given.images)[0], SIZES_BYTES)
        prepare(given.model, folder)
        for _ in range(given.rounds):
            for name in given.only:
                # Not by bench.report, which would load torch, and share its memory with servers.
                print(f"costs: {name}", flush=True)
                costs[name].append(cost_of(SUBJECTS[name], folder, bodies, given.seconds))
    write(given.output, costs)
    return 0


def prepare(archive: Path, folder: Path) -> None:
    """Write the unpacked archive with one worker, and the packages of both containers."""
    model = unpack(archive, folder / "shapes")
    config = model / MODEL_CONFIG_FILE
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    write_yaml(config, {**settings, "minWorkers": 1, "maxWorkers": 1})
    copy = Path(shutil.copy(archive, folder))
    for container in Container:
        package = build_package(copy, container=container)
        package.path.replace(folder / f"{container.value}.tar.gz")


def cost_of(subject: Subject, folder: Path, bodies: Sequence[Path], seconds: float) -> Cost:
    """Start a server, measure it and stop it. The memory is measured before the bare pipeline
    starts, which would share pages with it."""
    started = time.perf_counter()
    requests = image_requests(bodies)
    with subject.serve(folder) as running:
        request_once(running.url, requests[0], TIMEOUT_S)
        start_s = time.perf_counter() - started
        time.sleep(REST_S)
        memory_mb = memory_of(running.pid) / 1e6
        with running_worker(folder / "shapes", bodies, subject.python) as worker:
            served: dict[str, list[float]] = {}
            bare: dict[str, list[float]] = {}
            for index, request in enumerate(requests):
                size = size_name(len(request.body))
                _, once_s = request_once(running.url, request, TIMEOUT_S)
                longer_s = max(seconds, MIN_REQUESTS * once_s)
                for _ in range(ALTERNATIONS):
                    served.setdefault(size, []).append(served_ms(running.url, request, longer_s))
                    bare.setdefault(size, []).append(bare_ms(worker, index, longer_s))
    return Cost(memory_mb, start_s, _medians(served), _medians(bare))


def served_ms(url: str, request: Request, seconds: float) -> float:
    """Median latency of a server with a request. Raises CommandError where one failed."""
    load = measure(url, [request], ClosedLoop(1), seconds, WARM_UP_S, TIMEOUT_S)
    if load.failures or not load.requests:
        raise CommandError(
            f"{url}: {load.failures} of {load.requests} requests failed; use longer --seconds"
        )
    return load.latency_ms[50]


def bare_ms(worker: Worker, index: int, seconds: float) -> float:
    """Median latency of the bare pipeline with one of its images. Raises CommandError without a
    request in the window."""
    run = worker.run(1, seconds, WARM_UP_S, image=index)
    if not run.seconds:
        raise CommandError(
            f"no request of the bare pipeline began within {seconds:.1f} s; use longer --seconds"
        )
    return 1e3 * statistics.median(run.seconds)


def memory_of(leader: int) -> int:
    """Bytes of the processes of a server: pages that several of them share count once (PSS)."""
    members = {each.pid: each for each in session_members(leader)}
    members |= {each.pid: each for each in psutil.Process(leader).children(recursive=True)}
    total = 0
    for member in members.values():
        # A process may have ended.
        with suppress(psutil.Error):
            total += member.memory_full_info().pss
    return total


def rows_of(costs: Mapping[str, Sequence[Cost]]) -> Iterator[tuple[str, ...]]:
    """Rows of the table, in the columns of `costs`: medians of the starts."""

    def row(title: str, text: str, figure: Callable[[Cost], float]) -> tuple[str, ...]:
        medians = (statistics.median(map(figure, own)) for own in costs.values())
        return (title, *(text.format(each) for each in medians))

    yield row("memory at rest, all processes", "{:,.0f} MB", lambda cost: cost.memory_mb)
    yield row("from the command to the first prediction", "{:.1f} s", lambda cost: cost.start_s)
    first = next(iter(costs.values()))[0]
    for size in first.latency_ms:
        title = f"overhead per request of {size}"
        yield row(title, "{:.1f} ms", lambda cost, size=size: cost.overhead_ms(size))  # type: ignore[misc]
    sizes = []
    for name in costs:
        subject = SUBJECTS[name]
        if subject.extra:
            sizes.append(f"{extra_bytes(subject.python, subject.extra) / 1e6:,.0f} MB")
        else:
            sizes.append("the image's")
    yield ("size of the packages of its extra", *sizes)


def write(folder: Path, costs: Mapping[str, Sequence[Cost]]) -> None:
    """Write costs.json and .md."""
    from bench.report import Table, write_report

    columns = ("", *(SUBJECTS[name].title for name in costs))
    table = Table("Costs, medians of all starts", columns, list(rows_of(costs)))
    data: dict[str, Any] = {name: [each._asdict() for each in own] for name, own in costs.items()}
    first = next(iter(costs.values()))[0]
    notes = [
        f"{SUBJECTS[name].title}: bare pipeline "
        + ", ".join(
            f"{statistics.median(each.bare_ms[size] for each in own):.1f} ms ({size})"
            for size in first.bare_ms
        )
        for name, own in costs.items()
    ]
    write_report(folder / "costs", [table], {"costs": data}, notes=notes)


def _medians(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(own) for name, own in values.items()}
