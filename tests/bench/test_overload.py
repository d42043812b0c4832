"""The arithmetic of an overload; the rest needs a quiet machine."""

import pytest

from bench.load.figures import Load
from bench.overload import Overload, Probe, recovery_s

IDLE_S = 0.1


@pytest.mark.parametrize(
    ("probes", "recovered"),
    [
        ([Probe(99, 99.1, 200), Probe(103, 103.15, 200)], 3.15),
        ([Probe(101, 103, 200), Probe(103, 103.15, 200)], 3.15),
        ([Probe(101, 101.01, 503), Probe(102, 102.1, 200)], 2.1),
        ([Probe(101, 103, 200)], None),
        ([], None),
    ],
    ids=["before the end", "slow", "refused", "never", "nothing"],
)
def test_recovery(probes: list[Probe], recovered: float | None) -> None:
    assert recovery_s(probes, IDLE_S, ended=100) == (recovered and pytest.approx(recovered))


def load(requests: int, requests_per_s: float, **refused: float) -> Load:
    latency = {50: 70.0}
    refusals = {50: refused["refused_ms"]} if refused else {}
    return Load(requests, 0, requests_per_s, latency, {200: 1}, 10, 0, 5, refusals)


def test_what_is_printed() -> None:
    found = Overload(load(100, 11), load(400, 9.5, refused_ms=12), load(90, 9), 2.5)
    rows = dict(found.rows())
    assert rows["capacity"] == "11.00 before and 9.00 after, requests/s"
    assert rows["asked"] == "40.00 requests/s, 4.00 of capacity"
    assert rows["answered"] == "9.50 requests/s, 0.95 of capacity"
    assert rows["refused by 503, median"] == "12 ms"
    assert rows["recovered after"] == "2.5 s"
