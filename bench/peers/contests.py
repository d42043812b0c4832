"""What ours is measured beside: the peers, the pipeline without a server, and one bare request."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from bench.load.driver import ClosedLoop, Load, LoadError, OpenLoop, Target, measure
from bench.load.traffic import Traffic
from bench.peers.bare import measure_bare
from bench.peers.models import Model
from bench.peers.rounds import Result, take_turns
from bench.peers.servers import Peer, our_archive, ours
from scripts.archive import SERVING_DEFAULTS

TIMEOUT_S = 300.0
# Of what the server answers at most, under light load.
LIGHT_SHARE = 0.2
BATCH = int(SERVING_DEFAULTS["batchSize"])
BATCH_DELAY_MS = float(SERVING_DEFAULTS["maxBatchDelay"])
# Ours by theirs, by model and peer.
TARGETS = {
    ("shapes", "naive"): "at least 10",
    ("shapes", "toolkit"): "at least 10",
    ("r50", "naive"): "at least 3",
    ("r50", "toolkit"): "at least 3",
    ("r50", "object_detector"): "at least 1.5",
}
# In bfloat16, which the peers do not compute in.
BF16_TARGETS = TARGETS | {("r50", "object_detector"): "at least 3"}
TARGET_BARE = "at least 0.9"
# Whether the bare request rests for the batch delay as it does behind a server, so that the threads
# and the cores have to wake up; ours, the bare request's percentile, and the ratio aimed for.
LIGHT_PERCENTILES = (
    (False, 50, 50, ""),
    (False, 99, 50, "at most 1.2"),
    (False, 99, 99, ""),
    (True, 99, 99, ""),
)

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Terms:
    """How long and how often each contestant is measured, and by how many clients at once."""

    clients: int
    seconds: float
    rounds: int


@dataclass(frozen=True)
class Ours:
    """Our server, while it runs: the model, its precision, its archive, and where it is asked."""

    model: Model
    precision: str
    archive: Path
    target: Target

    @property
    def title(self) -> str:
        """What a table calls it."""
        return f"{self.model.name} {self.precision}"


@contextmanager
def serving(model: Model, precision: str, folder: Path) -> Iterator[Ours]:
    """Packs and serves a model in a folder while the `with` block runs."""
    archive = our_archive(model, precision, folder)
    with ours(archive, folder) as url:
        yield Ours(model, precision, archive, Target(url, model.pictures))


def beside_peer(own: Ours, peer: Peer, folder: Path, terms: Terms, tell: Tell) -> Result:
    """Requests/s of both servers at saturation.

    Raises:
        LoadError: a request failed, so that the figures would not speak of the same work.
    """
    tell(f"{own.title}: starting {peer.name}")
    with peer.serve(own.model, folder) as url:
        target = Target(url, own.model.pictures)
        sizes = [_answer_bytes(each) for each in (own.target, target)]
        rates, theirs = take_turns(
            [_saturate(own.target, terms), _saturate(target, terms)],
            terms.rounds,
            lambda done: tell(f"{own.title} beside {peer.name}: {done} of {2 * terms.rounds}"),
        )
    note = f"{sizes[0]:,} and {sizes[1]:,} bytes an answer; theirs drops {peer.drops}"
    targets = BF16_TARGETS if own.precision == "bf16" else TARGETS
    goal = targets.get((own.model.name, peer.name), "")
    measured = f"requests/s, {terms.clients} clients"
    return Result(own.title, measured, peer.name, rates, theirs, goal, note)


def beside_bare_loop(own: Ours, terms: Terms, tell: Tell) -> Result:
    """Requests/s at saturation beside pictures/s of decoding, forward and encoding alone."""
    rates, bare = take_turns(
        [
            _saturate(own.target, terms),
            lambda: (
                measure_bare(own.archive, own.model.pictures, BATCH, terms.seconds).images_per_s
            ),
        ],
        terms.rounds,
        lambda done: tell(f"{own.title} beside a bare loop: {done} of {2 * terms.rounds}"),
    )
    measured = f"requests/s, {terms.clients} clients"
    note = f"batches of {BATCH} in one process"
    return Result(own.title, measured, "bare loop", rates, bare, TARGET_BARE, note)


def beside_bare_request(own: Ours, capacity: float, terms: Terms, tell: Tell) -> Iterator[Result]:
    """Latency under light load beside one bare request and the batch delay; one picture's.

    Args:
        own: our server.
        capacity: requests/s at saturation.
        terms: how long and how often.
        tell: is told how far it is.
    """
    picture = own.model.pictures[:1]
    target = Target(own.target.url, picture)
    per_s = LIGHT_SHARE * capacity
    traffics: dict[str, Traffic] = {"1 client": ClosedLoop(1), f"{per_s:.1f}/s": OpenLoop(per_s)}
    rests_ms = (0.0, BATCH_DELAY_MS)
    measured = take_turns(
        [
            *(partial(_measure, target, traffic, terms.seconds) for traffic in traffics.values()),
            *(
                partial(measure_bare, own.archive, picture, 1, terms.seconds, rest_ms)
                for rest_ms in rests_ms
            ),
        ],
        terms.rounds,
        lambda done: tell(f"{own.title} under light load: {done} of {4 * terms.rounds}"),
    )
    *loads, at_once, rested = measured
    for name, own_loads in zip(traffics, loads, strict=True):
        for rests, percent, bare_percent, goal in LIGHT_PERCENTILES:
            latencies = tuple(load.latency_ms[percent] for load in own_loads)
            bares = rested if rests else at_once
            bare = tuple(each.percentile_ms(bare_percent) + BATCH_DELAY_MS for each in bares)
            yield Result(
                own.title,
                f"p{percent} in ms, {name}",
                f"{'rested' if rests else 'bare'} request, p{bare_percent}",
                latencies,
                bare,
                goal,
                f"{BATCH_DELAY_MS:g} ms of theirs are the batch delay",
            )


def _saturate(target: Target, terms: Terms) -> Callable[[], float]:
    """Requests/s."""
    traffic = ClosedLoop(terms.clients)
    return lambda: _measure(target, traffic, terms.seconds).requests_per_s


def _measure(target: Target, traffic: Traffic, seconds: float) -> Load:
    load = measure(target, traffic, seconds, timeout_seconds=TIMEOUT_S)
    if load.failures:
        raise LoadError(f"{target.url} failed {load.failures} of {load.requests} requests")
    return load


def _answer_bytes(target: Target) -> int:
    """The mean over the pictures; the first answer of some servers waits for them to load."""
    pictures: Sequence[Path] = target.pictures
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as http:
        answers = [
            http.post(
                target.url, content=picture.read_bytes(), headers=target.headers_of(picture)
            ).raise_for_status()
            for picture in pictures
        ]
    return sum(len(answer.content) for answer in answers) // len(answers)
