from itertools import islice
from pathlib import Path

import pytest

from bench.load.traffic import Target, poisson_arrivals, shuffled_rounds


def test_arrivals_come_at_their_rate_and_vary_as_a_poisson_process_does() -> None:
    arrivals = list(poisson_arrivals(50, within_s=200))
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] < 200
    assert len(arrivals) == pytest.approx(10_000, rel=0.03)
    counts = [sum(second <= moment < second + 1 for moment in arrivals) for second in range(200)]
    variance = sum((count - 50) ** 2 for count in counts) / len(counts)
    assert variance == pytest.approx(50, rel=0.35)


def test_every_picture_comes_once_a_round_in_changing_order() -> None:
    items = list(range(8))
    rounds = shuffled_rounds(items)
    first, second = list(islice(rounds, 8)), list(islice(rounds, 8))
    assert sorted(first) == sorted(second) == items
    assert len({tuple(items), tuple(first), tuple(second)}) == 3
    assert list(islice(shuffled_rounds(items, seed=1), 8)) != first


def test_headers_name_the_pictures_type_or_the_one_that_the_target_wants() -> None:
    target = Target("http://x/", [], {"Accept": "image/png"}, {".png": "application/x-image"})
    assert target.headers_of(Path("a.JPG")) == {"Accept": "image/png", "Content-Type": "image/jpeg"}
    assert target.headers_of(Path("a.PNG"))["Content-Type"] == "application/x-image"
