from dataclasses import replace

import pytest

from bench.load.points import FRONTEND, GENERATOR, MACHINE, NOTHING, UNKNOWN, WORKERS, explain
from bench.load.traffic import ClosedLoop, OpenLoop
from tests.bench.load.made_up import BUSY, IDLE, load, point, setting

TRAFFIC = ClosedLoop(4)


@pytest.mark.parametrize(
    ("cpu", "generator_percent", "limit", "sentence"),
    [
        (IDLE, 20, NOTHING, "Nothing saturates"),
        (IDLE, 91, GENERATOR, "The load generator saturates"),
        (BUSY, 91, GENERATOR, "The load generator saturates"),
        (BUSY, 20, MACHINE, "All cores of the machine are busy"),
        (replace(IDLE, worker_thread=0.9), 20, WORKERS, "The workers saturate"),
        (replace(IDLE, frontend_thread=0.9), 20, FRONTEND, "TorchServe's frontend saturates"),
        (replace(IDLE, worker_thread=0.9, frontend_thread=0.9), 20, WORKERS, "The workers"),
        (None, 20, UNKNOWN, "cannot be told"),
    ],
)
def test_what_saturates_is_derived_from_the_samples(
    cpu: object, generator_percent: float, limit: str, sentence: str
) -> None:
    measured = load(10, 100, generator_cpu_percent=generator_percent)
    found = point(setting(), TRAFFIC, measured, cpu)  # type: ignore[arg-type]
    assert found.limit == limit
    assert sentence in explain(found)


def test_the_sentence_has_everybodys_share_of_the_cores() -> None:
    told = explain(point(setting(), TRAFFIC, load(10, 100), BUSY))
    assert "Of 4 cores the workers used 3.50, the frontend 0.20, the generator 0.20" in told
    assert "everything else on the machine 0.00" in told


def test_an_open_loop_has_no_clients() -> None:
    assert point(setting(), OpenLoop(9), load(9, 100)).clients is None
