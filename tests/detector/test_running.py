"""Which pictures share a forward, and what one that fails does to the others."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from handler.detections import Detections
from handler.detector.interface import Failure
from handler.detector.running import BatchRunner, Size
from handler.settings import Settings
from tests.fakes import detections_of


class Network:
    """Answers each picture with a box as large as its first pixel's value; fails on the value 9."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: Sequence[Tensor], sizes_hw: Sequence[Size]) -> list[Detections]:
        self.batches.append(len(images))
        if any(image[0, 0, 0] == 9 for image in images):
            raise torch.OutOfMemoryError if len(images) == 1 else RuntimeError("a kernel failed")
        return [
            detections_of(size, [(0, 0, int(image[0, 0, 0]), 1)])
            for image, size in zip(images, sizes_hw, strict=True)
        ]


def pictures(*values: int, sides: Sequence[int] | None = None) -> list[Tensor]:
    return [
        torch.full((3, side, 4), value, dtype=torch.uint8)
        for value, side in zip(values, sides or [4] * len(values), strict=True)
    ]


def runner(network: Network, **settings: int | str) -> BatchRunner:
    """Pads heights to multiples of 8."""
    chosen = Settings(**settings)  # type: ignore[arg-type]
    return BatchRunner(network, lambda size: (-(-size[0] // 8) * 8, size[1]), chosen)


@pytest.mark.parametrize(
    ("settings", "batches"),
    [
        pytest.param({}, [3, 2], id="by padded size"),
        pytest.param({"images_per_forward": 2}, [2, 1, 2], id="at most two"),
        pytest.param({"padding": "batch"}, [5], id="all together"),
    ],
)
def test_pictures_run_in_groups_and_answers_keep_their_order(
    settings: dict[str, int | str], batches: list[int]
) -> None:
    network = Network()
    images = pictures(1, 2, 3, 4, 5, sides=[4, 16, 8, 9, 1])
    outcomes = runner(network, **settings).run(images, [(10, 10 + i) for i in range(5)])
    assert network.batches == batches
    found = [outcome.found for outcome in outcomes]
    assert [f.boxes_xyxy[0, 2] for f in found if isinstance(f, Detections)] == [1, 2, 3, 4, 5]
    assert [f.size_hw for f in found if isinstance(f, Detections)] == [
        (10, 10 + i) for i in range(5)
    ]


def test_a_failure_is_halved_down_to_the_picture_at_fault() -> None:
    network = Network()
    outcomes = runner(network).run(pictures(1, 2, 9, 4), [(4, 4)] * 4)
    assert [isinstance(outcome.found, Detections) for outcome in outcomes] == [
        *(True, True, False, True)
    ]
    assert outcomes[2].found is Failure.OUT_OF_MEMORY
    assert [outcome.batch for outcome in outcomes] == [2, 2, 1, 1]
    assert network.batches == [4, 2, 2, 1, 1]


def test_forwards_are_remembered_with_their_sizes_and_how_they_ended() -> None:
    running = runner(Network())
    running.run(pictures(1, 2, 9, 4), [(4, 4)] * 4)
    forwards = running.forwards.take()
    assert [(forward.images, forward.failed, forward.out_of_memory) for forward in forwards] == [
        (4, True, False),
        (2, False, False),
        (2, True, False),
        (1, True, True),
        (1, False, False),
    ]


def test_nothing_runs_without_pictures() -> None:
    running = runner(network := Network())
    assert running.run([], []) == []
    assert network.batches == []
    assert running.forwards.take() == ()
