"""What is sent where, and by which rule the requests follow each other."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.load.requests import Group, Request
from scripts.pictures import content_type_of

Item = TypeVar("Item")
SEED = 0
JSON = {"Accept": "application/json"}


@dataclass(frozen=True)
class Target:
    """Where the requests go and what they carry.

    Attributes:
        url: of the route that takes a picture as the body of a POST.
        pictures: files, sent as they are, in shuffled rounds.
        headers: of every request; each picture's Content-Type comes on top.
        content_types: by file suffix, where it is not what `content_type_of` says.
    """

    url: str
    pictures: Sequence[Path]
    headers: Mapping[str, str] = field(default_factory=lambda: dict(JSON))
    content_types: Mapping[str, str] = field(default_factory=dict)

    def headers_of(self, picture: Path) -> dict[str, str]:
        """All headers of the request that carries this picture."""
        kind = self.content_types.get(picture.suffix.lower(), content_type_of(picture))
        return {**self.headers, "Content-Type": kind}


@dataclass(frozen=True)
class ClosedLoop:
    """Clients that send their next request as soon as the answer to the last has come."""

    clients: int

    def __str__(self) -> str:
        return "1 client" if self.clients == 1 else f"{self.clients} clients"


@dataclass(frozen=True)
class OpenLoop:
    """Requests that come as a Poisson process, whether or not earlier ones have been answered."""

    requests_per_s: float

    def __str__(self) -> str:
        return f"{self.requests_per_s:.1f} requests/s, open loop"


Traffic = ClosedLoop | OpenLoop


def poisson_arrivals(requests_per_s: float, within_s: float, seed: int = SEED) -> Iterator[float]:
    """The moments, in seconds from 0 to `within_s`, of a Poisson process of that rate."""
    gaps = random.Random(seed)  # noqa: S311
    moment = gaps.expovariate(requests_per_s)
    while moment < within_s:
        yield moment
        moment += gaps.expovariate(requests_per_s)


def shuffled_rounds(items: Sequence[Item], seed: int = SEED) -> Iterator[Item]:
    """Every item once in a random order, then all again in another, without end.

    So a run of any length has the same mix, and batches form of all sizes.
    """
    order = random.Random(seed)  # noqa: S311
    while True:
        yield from order.sample(items, len(items))


def mixed(groups: Sequence[Group], seed: int = SEED) -> Iterator[Request]:
    """Requests without end: of a group drawn by its share the next one of its shuffled rounds."""
    draw = random.Random(seed)  # noqa: S311
    rounds = [shuffled_rounds(group.requests, seed) for group in groups]
    shares = [group.share for group in groups]
    while True:
        [chosen] = draw.choices(rounds, shares)
        yield next(chosen)
