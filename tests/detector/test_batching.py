"""Batches of images: grouping, isolation of failures, and the limit of the memory."""

import itertools
import weakref
from collections.abc import Hashable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from d2serve.detections import Detections
from d2serve.detector import batching
from d2serve.detector.base import Failure, InferenceResult, PreprocessedImage, Size
from d2serve.detector.batching import PASSES_BEFORE_GROWTH, BatchRunner, MemoryLimit, group
from d2serve.errors import DeviceLostError
from d2serve.settings import Settings
from tests.fakes import detections_of


@pytest.mark.parametrize(
    ("keys", "limit", "expected"),
    [
        pytest.param("", 4, [], id="no items"),
        pytest.param("a", 1, [[0]], id="one"),
        pytest.param("aaa", 3, [[0, 1, 2]], id="full group"),
        pytest.param("aaaa", 3, [[0, 1, 2], [3]], id="one more than a group"),
        pytest.param("aaa", 1, [[0], [1], [2]], id="limit of one"),
        pytest.param("abc", 8, [[0], [1], [2]], id="different keys"),
        pytest.param("abab", 8, [[0, 2], [1, 3]], id="two keys interleaved"),
        pytest.param("baabab", 2, [[1, 2], [0, 3], [4], [5]], id="interleaved over the limit"),
        pytest.param([(32, 64), (64, 32), (32, 64)], 8, [[0, 2], [1]], id="sizes"),
    ],
)
def test_equal_keys_form_groups_up_to_the_limit(
    keys: Sequence[Hashable], limit: int, expected: list[list[int]]
) -> None:
    groups = list(group(keys, lambda key: key, limit))
    assert [[position for position, _ in own] for own in groups] == expected
    assert all(keys[position] == item for own in groups for position, item in own)


def test_full_group_is_yielded_before_the_next_item_is_consumed() -> None:
    taken: list[str] = []

    def items() -> Iterator[str]:
        for item in "abaab":
            taken.append(item)
            yield item

    groups = group(items(), lambda item: item, 2)
    assert next(groups) == [(0, "a"), (2, "a")]
    assert taken == ["a", "b", "a"]
    assert list(groups) == [[(1, "b"), (4, "b")], [(3, "a")]]


def limited_to(pixels: int) -> MemoryLimit:
    limit = MemoryLimit()
    limit.record(2 * pixels, together=pixels)
    return limit


def succeed(limit: MemoryLimit, pixels: int, times: int) -> None:
    for _ in range(times):
        limit.record(pixels, together=pixels)


def test_memory_is_unlimited_without_a_failure() -> None:
    limit = MemoryLimit()
    succeed(limit, 400, 2 * PASSES_BEFORE_GROWTH)
    assert limit.max_images(100) is None


def test_pixels_that_fitted_are_the_limit_for_all_sizes() -> None:
    limit = limited_to(400)
    assert [limit.max_images(pixels) for pixels in (50, 100, 400, 9000)] == [8, 4, 1, 1]


def test_limit_that_is_too_high_is_lowered() -> None:
    limit = limited_to(400)
    limit.record(400, together=200)
    assert limit.max_images(100) == 2


def test_limit_grows_after_many_successes() -> None:
    limit = limited_to(400)
    succeed(limit, 400, PASSES_BEFORE_GROWTH - 1)
    assert limit.max_images(100) == 4
    succeed(limit, 400, 1)
    assert limit.max_images(100) == 8


def test_small_forward_passes_do_not_raise_the_limit() -> None:
    limit = limited_to(400)
    succeed(limit, 200, 2 * PASSES_BEFORE_GROWTH)
    assert limit.max_images(100) == 4


def test_failure_resets_the_count() -> None:
    limit = limited_to(400)
    succeed(limit, 400, PASSES_BEFORE_GROWTH - 1)
    limit.record(800, together=400)
    succeed(limit, 400, 1)
    assert limit.max_images(100) == 4


class Network:
    """Returns a box as wide as the first pixel's value; fails on the value 9."""

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


def prepared_images(*values: int, sides: Sequence[int] | None = None) -> list[PreprocessedImage]:
    """Images of width 8, each with a different original size."""
    return [
        PreprocessedImage(torch.full((3, side, 8), value, dtype=torch.uint8), (10, 10 + index))
        for index, (value, side) in enumerate(zip(values, sides or [8] * len(values), strict=True))
    ]


def run(
    network: Network, images: Sequence[PreprocessedImage], **settings: int | str
) -> list[tuple[int, InferenceResult]]:
    """Positions and results in the order in which they are yielded."""
    return list(runner(network, **settings).stream(images))


def runner(network: Network, **settings: int | str) -> BatchRunner:
    """A runner that pads heights to multiples of 8."""
    chosen = Settings(**settings)  # type: ignore[arg-type]
    return BatchRunner(network, lambda size: [(-(-size[0] // 8) * 8, size[1])], chosen)


@pytest.mark.parametrize(
    ("settings", "batches"),
    [
        pytest.param({}, [[0, 2, 4], [1, 3]], id="by padded size"),
        pytest.param({"images_per_forward": 2}, [[0, 2], [1, 3], [4]], id="at most two"),
        pytest.param({"padding": "batch"}, [[0, 2, 4], [1, 3]], id="square and tall"),
    ],
)
def test_images_run_in_groups_and_keep_their_own_results(
    settings: dict[str, int | str], batches: list[list[int]]
) -> None:
    network = Network()
    results = run(network, prepared_images(1, 2, 3, 4, 5, sides=[4, 16, 8, 9, 1]), **settings)
    assert [position for position, _ in results] == list(itertools.chain(*batches))
    assert network.batches == [len(batch) for batch in batches]
    for position, result in results:
        assert isinstance(result.output, Detections)
        assert result.output.boxes_xyxy[0, 2] == position + 1
        assert result.output.size_hw == (10, 10 + position)


def test_batch_padding_separates_landscape_portrait_and_square() -> None:
    """Images of different sizes and equal orientation run together."""
    network = Network()
    images = prepared_images(1, 2, 3, 4, sides=[16, 32, 8, 5])
    images += [
        PreprocessedImage(torch.ones(3, 8, width, dtype=torch.uint8), (8, 9)) for width in (9, 60)
    ]
    together = run(network, images, padding="batch")
    assert network.batches == [2, 2, 2]
    assert [position for position, _ in together] == list(range(6))


def test_results_are_yielded_before_the_next_group_is_consumed() -> None:
    taken: list[int] = []

    def images() -> Iterator[PreprocessedImage]:
        for prepared in prepared_images(1, 2, 3, 4):
            taken.append(int(prepared.image[0, 0, 0]))
            yield prepared

    runner = BatchRunner(Network(), lambda size: [size], Settings(images_per_forward=2))
    results = runner.stream(images())
    assert [next(results)[0], next(results)[0]] == [0, 1]
    assert taken == [1, 2]
    assert [position for position, _ in results] == [2, 3]


def test_failing_batch_runs_again_image_by_image() -> None:
    network = Network()
    results = [result for _, result in run(network, prepared_images(1, 2, 9, 4))]
    assert [isinstance(result.output, Detections) for result in results] == [
        *(True, True, False, True)
    ]
    assert results[2].output is Failure.OUT_OF_MEMORY
    assert [result.batch for result in results] == [1, 1, 1, 1]
    assert isinstance(results[2].error, torch.OutOfMemoryError)
    assert results[2].error.__traceback__ is None
    assert network.batches == [4, 1, 1, 1, 1]


def test_forward_passes_are_logged_with_size_and_failure() -> None:
    own_runner = runner(Network())
    list(own_runner.stream(prepared_images(1, 2, 9, 4)))
    passes = own_runner.forward_passes.take()
    assert [(each.images, each.failed, each.out_of_memory) for each in passes] == [
        (4, True, False),
        (1, False, False),
        (1, False, False),
        (1, True, True),
        (1, False, False),
    ]


def test_no_images_need_no_forward_pass() -> None:
    own_runner = runner(network := Network())
    assert list(own_runner.stream([])) == []
    assert network.batches == []
    assert own_runner.forward_passes.take() == ()


class SmallDevice(Network):
    """Has memory for a number of pixels."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def __call__(self, images: Sequence[Tensor], sizes_hw: Sequence[Size]) -> list[Detections]:
        if sum(image[0].numel() for image in images) > self.pixels:
            self.batches.append(len(images))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().__call__(images, sizes_hw)


def runner_of(network: Network) -> BatchRunner:
    return BatchRunner(network, lambda size: [size], Settings())


def test_batch_size_that_fitted_is_remembered() -> None:
    network = SmallDevice(pixels=2 * 64)
    runner = runner_of(network)
    assert len(list(runner.stream(prepared_images(*range(8))))) == 8
    assert network.batches == [8, 4, 2, 2, 4, 2, 2]
    network.batches.clear()
    results = [result for _, result in runner.stream(prepared_images(1, 2, 3, 4, 5))]
    assert network.batches == [2, 2, 1]
    assert all(isinstance(result.output, Detections) for result in results)


def test_images_too_large_for_the_device_fail_and_small_ones_still_run_together() -> None:
    network = SmallDevice(pixels=4 * 64)
    runner = runner_of(network)
    large = [result.output for _, result in runner.stream(prepared_images(1, 2, sides=[64, 64]))]
    assert large == [Failure.OUT_OF_MEMORY] * 2
    network.batches.clear()
    list(runner.stream(prepared_images(1, 2, 3, 4)))
    assert network.batches == [4]


def test_image_that_fails_alone_does_not_limit_the_batch_size() -> None:
    network = Network()
    runner = runner_of(network)
    list(runner.stream(prepared_images(1, 9, 3, 4)))
    network.batches.clear()
    list(runner.stream(prepared_images(1, 2, 3, 4)))
    assert network.batches == [4]


class FailsTogether(Network):
    """Fails on several images for a reason other than memory."""

    def __call__(self, images: Sequence[Tensor], sizes_hw: Sequence[Size]) -> list[Detections]:
        detections = super().__call__(images, sizes_hw)
        if len(images) == 3:
            raise RuntimeError("a kernel failed")
        return detections


def test_error_other_than_memory_does_not_limit_the_batch_size() -> None:
    network = FailsTogether()
    runner = runner_of(network)
    assert len(list(runner.stream(prepared_images(1, 2, 3)))) == 3
    list(runner.stream(prepared_images(1, 2)))
    assert network.batches == [3, 1, 1, 1, 2]


def test_lost_device_ends_the_run() -> None:
    def lost(*_: object) -> list[Detections]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    runner = BatchRunner(lost, lambda size: [size], Settings())
    with pytest.raises(DeviceLostError):
        list(runner.stream(prepared_images(1, 2)))


def test_failed_forward_pass_keeps_no_memory_while_the_halves_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # pytest keeps log records, whose exceptions keep the frames and their memory.
    monkeypatch.setattr(batching.logger, "disabled", True)
    references: list[weakref.ref[Tensor]] = []

    def network(images: Sequence[Tensor], sizes_hw: Sequence[Size]) -> list[Detections]:
        assert all(reference() is None for reference in references)
        allocated = torch.empty(1)
        references.append(weakref.ref(allocated))
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Network()(images, sizes_hw)

    results = BatchRunner(network, lambda size: [size], Settings()).stream(prepared_images(1, 2, 3))
    assert all(isinstance(result.output, Detections) for _, result in results)
    assert len(references) == 5
