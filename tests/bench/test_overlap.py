"""The batches that the benchmark sends."""

import io

import pytest
from PIL import Image

from bench.overlap import MIXED, SMALL, Worker, one_after_another, requests, side_by_side


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [("3-small", [*SMALL, SMALL[0]]), ("4-mixed", [*MIXED[:4]])],
)
def test_batches_are_jpegs_of_the_sizes_in_turn(batch: str, sizes: list[tuple[int, int]]) -> None:
    bodies = [part.body for request in requests(batch) for part in request.parts]
    assert [Image.open(io.BytesIO(body)).size for body in bodies] == sizes


class Recorded(Worker):
    """Writes down what it is told."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def begin(self, overlaps: bool) -> None:
        self.log.append(f"{self.name} begins {overlaps}")

    def wait(self) -> None:
        self.log.append(f"{self.name} is done")


def test_a_round_is_two_batches_for_one_worker_and_for_two() -> None:
    log: list[str] = []
    one_after_another(Recorded(log, "a"), overlaps=True)
    assert log == ["a begins True", "a is done"] * 2
    log.clear()
    side_by_side([Recorded(log, "a"), Recorded(log, "b")], overlaps=False)
    assert log == ["a begins False", "b begins False", "a is done", "b is done"]
