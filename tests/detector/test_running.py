"""Which pictures share a forward, and what one that fails does to the others."""

import itertools
import weakref
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from d2serve.detections import Detections
from d2serve.detector import batching as running
from d2serve.detector.base import DeviceLostError, Failure, Outcome, Prepared, Size
from d2serve.detector.batching import BatchRunner
from d2serve.settings import Settings
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


def pictures(*values: int, sides: Sequence[int] | None = None) -> list[Prepared]:
    """Of a width of 8, each of a size of its own before it was resized."""
    return [
        Prepared(torch.full((3, side, 8), value, dtype=torch.uint8), (10, 10 + index))
        for index, (value, side) in enumerate(zip(values, sides or [8] * len(values), strict=True))
    ]


def run(
    network: Network, images: Sequence[Prepared], **settings: int | str
) -> list[tuple[int, Outcome]]:
    """Outcomes by position, in the order in which they came."""
    return list(runner(network, **settings).run(images))


def runner(network: Network, **settings: int | str) -> BatchRunner:
    """Heights pad to multiples of 8."""
    chosen = Settings(**settings)  # type: ignore[arg-type]
    return BatchRunner(network, lambda size: (-(-size[0] // 8) * 8, size[1]), chosen)


@pytest.mark.parametrize(
    ("settings", "batches"),
    [
        pytest.param({}, [[0, 2, 4], [1, 3]], id="by padded size"),
        pytest.param({"images_per_forward": 2}, [[0, 2], [1, 3], [4]], id="at most two"),
        pytest.param({"padding": "batch"}, [[0, 2, 4], [1, 3]], id="square and tall"),
    ],
)
def test_pictures_run_in_groups_and_answers_are_of_their_own_picture(
    settings: dict[str, int | str], batches: list[list[int]]
) -> None:
    network = Network()
    outcomes = run(network, pictures(1, 2, 3, 4, 5, sides=[4, 16, 8, 9, 1]), **settings)
    assert [position for position, _ in outcomes] == list(itertools.chain(*batches))
    assert network.batches == [len(batch) for batch in batches]
    for position, outcome in outcomes:
        assert isinstance(outcome.found, Detections)
        assert outcome.found.boxes_xyxy[0, 2] == position + 1
        assert outcome.found.size_hw == (10, 10 + position)


def test_batch_padding_keeps_wide_tall_and_square_apart() -> None:
    """Pictures of other sizes but one orientation run together."""
    network = Network()
    images = pictures(1, 2, 3, 4, sides=[16, 32, 8, 5])
    images += [Prepared(torch.ones(3, 8, width, dtype=torch.uint8), (8, 9)) for width in (9, 60)]
    together = run(network, images, padding="batch")
    assert network.batches == [2, 2, 2]
    assert [position for position, _ in together] == list(range(6))


def test_outcomes_come_before_the_next_group_is_taken() -> None:
    taken: list[int] = []

    def images() -> Iterator[Prepared]:
        for picture in pictures(1, 2, 3, 4):
            taken.append(int(picture.image[0, 0, 0]))
            yield picture

    runner = BatchRunner(Network(), lambda size: size, Settings(images_per_forward=2))
    outcomes = runner.run(images())
    assert [next(outcomes)[0], next(outcomes)[0]] == [0, 1]
    assert taken == [1, 2]
    assert [position for position, _ in outcomes] == [2, 3]


def test_a_failure_is_halved_down_to_the_picture_at_fault() -> None:
    network = Network()
    outcomes = [outcome for _, outcome in run(network, pictures(1, 2, 9, 4))]
    assert [isinstance(outcome.found, Detections) for outcome in outcomes] == [
        *(True, True, False, True)
    ]
    assert outcomes[2].found is Failure.OUT_OF_MEMORY
    assert [outcome.batch for outcome in outcomes] == [2, 2, 1, 1]
    assert network.batches == [4, 2, 2, 1, 1]


def test_forwards_are_remembered_with_their_sizes_and_how_they_ended() -> None:
    running = runner(Network())
    list(running.run(pictures(1, 2, 9, 4)))
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
    assert list(running.run([])) == []
    assert network.batches == []
    assert running.forwards.take() == ()


class SmallDevice(Network):
    """Has room for so many pixels."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def __call__(self, images: Sequence[Tensor], sizes_hw: Sequence[Size]) -> list[Detections]:
        if sum(image[0].numel() for image in images) > self.pixels:
            self.batches.append(len(images))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().__call__(images, sizes_hw)


def runner_of(network: Network) -> BatchRunner:
    return BatchRunner(network, lambda size: size, Settings())


def test_a_size_that_fitted_is_remembered() -> None:
    network = SmallDevice(pixels=2 * 64)
    runner = runner_of(network)
    assert len(list(runner.run(pictures(*range(8))))) == 8
    assert network.batches == [8, 4, 2, 2, 4, 2, 2]
    network.batches.clear()
    outcomes = [outcome for _, outcome in runner.run(pictures(1, 2, 3, 4, 5))]
    assert network.batches == [2, 2, 1]
    assert all(isinstance(outcome.found, Detections) for outcome in outcomes)


def test_pictures_too_large_for_the_device_get_nothing_and_small_ones_run_on_together() -> None:
    network = SmallDevice(pixels=4 * 64)
    runner = runner_of(network)
    large = [outcome.found for _, outcome in runner.run(pictures(1, 2, sides=[64, 64]))]
    assert large == [Failure.OUT_OF_MEMORY] * 2
    network.batches.clear()
    list(runner.run(pictures(1, 2, 3, 4)))
    assert network.batches == [4]


def test_a_picture_that_fails_alone_does_not_part_the_others() -> None:
    network = Network()
    runner = runner_of(network)
    list(runner.run(pictures(1, 9, 3, 4)))
    network.batches.clear()
    list(runner.run(pictures(1, 2, 3, 4)))
    assert network.batches == [4]


def test_a_lost_device_ends_the_run() -> None:
    def lost(*_: object) -> list[Detections]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    runner = BatchRunner(lost, lambda size: size, Settings())
    with pytest.raises(DeviceLostError):
        list(runner.run(pictures(1, 2)))


def test_a_failed_forward_holds_no_memory_while_the_halves_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # pytest keeps what is logged, and with the exception the frames that hold the memory.
    monkeypatch.setattr(running.logger, "disabled", True)
    held: list[weakref.ref[Tensor]] = []

    def network(images: Sequence[Tensor], sizes_hw: Sequence[Size]) -> list[Detections]:
        assert all(reference() is None for reference in held)
        allocated = torch.empty(1)
        held.append(weakref.ref(allocated))
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Network()(images, sizes_hw)

    outcomes = BatchRunner(network, lambda size: size, Settings()).run(pictures(1, 2, 3))
    assert all(isinstance(outcome.found, Detections) for _, outcome in outcomes)
    assert len(held) == 5
