"""Batches of the images that wait for the network."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from d2serve.serving.batcher import BATCHES_AHEAD, Batcher, BatchLimits

TIMEOUT_S = 20
# Nothing in a test takes so long.
FOREVER_S = 1000.0


@dataclass(frozen=True, order=True)
class Image:
    """An image in the order of turns."""

    turn: int
    number: int
    key: str
    pixels: int


class BatcherMachine(RuleBasedStateMachine):
    """Puts and takes in any order; each batch has the properties that requests rely on."""

    @initialize(images=st.integers(1, 4), pixels=st.integers(1, 40))
    def start(self, images: int, pixels: int) -> None:
        self.limits = BatchLimits(images, pixels)
        self.batcher: Batcher[Image] = Batcher(self.limits)
        self.waiting: list[Image] = []
        self.put_count = 0
        # Images that may be taken before each waiting one, and batches since it waits.
        self.ahead: dict[Image, int] = {}
        self.batches: dict[Image, int] = {}

    @rule(turn=st.integers(0, 5), key=st.sampled_from("abc"), pixels=st.integers(1, 20))
    def put(self, turn: int, key: str, pixels: int) -> None:
        image = Image(turn, self.put_count, key, pixels)
        self.put_count += 1
        self.batcher.put(image, turn, key, pixels)
        self.ahead[image] = sum(each < image for each in self.waiting)
        for each in self.waiting:
            self.ahead[each] += image < each
        self.batches[image] = 0
        self.waiting.append(image)

    @precondition(lambda self: self.waiting)
    @rule()
    def take(self) -> None:
        assert len(self.batcher._waiting) == len(self.waiting), "an image is lost"
        batch = self.batcher.take()
        assert batch
        assert len(set(batch)) == len(batch), "an image is duplicated"
        assert set(batch) <= set(self.waiting), "an image is run again"
        waiting = self.waiting
        self.waiting = [image for image in waiting if image not in batch]
        self._check_limits(batch)
        self._check_order(batch, waiting)
        for image in waiting:
            self.batches[image] += 1
            assert self.batches[image] <= 1 + self.ahead[image], "an image starves"

    @rule()
    def enough(self) -> None:
        limit = BATCHES_AHEAD * self.limits.images
        assert self.batcher.has_enough() == (len(self.waiting) >= limit)

    def teardown(self) -> None:
        if not hasattr(self, "batcher"):
            return
        while self.waiting:
            self.take()
        self.batcher.close()
        assert self.batcher.take() is None

    def _check_limits(self, batch: list[Image]) -> None:
        assert len({image.key for image in batch}) == 1, "sizes are mixed"
        assert len(batch) <= self.limits.images
        largest = max(image.pixels for image in batch)
        assert len(batch) == 1 or largest * len(batch) <= self.limits.pixels

    def _check_order(self, batch: list[Image], waiting: list[Image]) -> None:
        assert batch[0] == min(waiting)
        same_size = sorted(image for image in waiting if image.key == batch[0].key)
        assert batch == same_size[: len(batch)], "images are reordered"
        if len(batch) < min(self.limits.images, len(same_size)):
            larger = same_size[: len(batch) + 1]
            assert max(image.pixels for image in larger) * len(larger) > self.limits.pixels


TestBatcherMachine = BatcherMachine.TestCase
TestBatcherMachine.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, derandomize=True, database=None
)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(
    images=st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab")), max_size=30),
    limit=st.integers(1, 5),
)
def test_no_image_is_lost_between_threads(images: list[tuple[int, str]], limit: int) -> None:
    batcher: Batcher[int] = Batcher(BatchLimits(limit, pixels=1000))
    taken: list[int] = []

    def consume() -> None:
        while batch := batcher.take():
            taken.extend(batch)

    consumer = threading.Thread(target=consume)
    consumer.start()
    for number, (turn, key) in enumerate(images):
        batcher.put(number, turn, key, pixels=1)
    batcher.close()
    consumer.join(TIMEOUT_S)
    assert not consumer.is_alive()
    assert sorted(taken) == list(range(len(images)))


def in_thread(take: Callable[[], list[str] | None]) -> "Future[list[str] | None]":
    """The result of a call that may block."""
    future: Future[list[str] | None] = Future()
    threading.Thread(target=lambda: future.set_result(take()), daemon=True).start()
    return future


class Expectation:
    """Returns whether more images may arrive, and signals that a batch waits for them."""

    def __init__(self) -> None:
        self.more = True
        self.asked = threading.Event()

    def __call__(self) -> bool:
        self.asked.set()
        return self.more

    def await_batch(self) -> None:
        assert self.asked.wait(TIMEOUT_S)


@pytest.fixture
def expects_more() -> Expectation:
    return Expectation()


@pytest.fixture
def waiting(expects_more: Expectation) -> "Batcher[str]":
    """A batcher that waits for batches of two to fill."""
    return Batcher(BatchLimits(images=2, pixels=1000, wait_s=FOREVER_S), expects_more)


def test_batch_waits_until_it_is_full(waiting: "Batcher[str]", expects_more: Expectation) -> None:
    waiting.put("a", 0, None, 1)
    batch = in_thread(waiting.take)
    expects_more.await_batch()
    waiting.put("b", 0, None, 1)
    assert batch.result(TIMEOUT_S) == ["a", "b"]


def test_batch_starts_once_no_image_is_expected(
    waiting: "Batcher[str]", expects_more: Expectation
) -> None:
    waiting.put("a", 0, None, 1)
    batch = in_thread(waiting.take)
    expects_more.await_batch()
    expects_more.more = False
    waiting.wake()
    assert batch.result(TIMEOUT_S) == ["a"]


def test_batch_starts_when_the_batcher_is_closed(
    waiting: "Batcher[str]", expects_more: Expectation
) -> None:
    waiting.put("a", 0, None, 1)
    batch = in_thread(waiting.take)
    expects_more.await_batch()
    waiting.close()
    assert batch.result(TIMEOUT_S) == ["a"]


def test_batch_of_a_rare_size_does_not_wait_if_enough_images_do(
    waiting: "Batcher[str]", expects_more: Expectation
) -> None:
    waiting.put("a", 0, "rare", 1)
    batch = in_thread(waiting.take)
    expects_more.await_batch()
    for number in range(2 * BATCHES_AHEAD - 1):
        waiting.put("b", 1 + number, number, 1)
    assert batch.result(TIMEOUT_S) == ["a"]


def test_batch_waits_no_longer_than_the_limit(
    waiting: "Batcher[str]", expects_more: Expectation, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("d2serve.serving.batcher.time.monotonic", lambda: now[0])
    waiting.put("a", 0, None, 1)
    batch = in_thread(waiting.take)
    expects_more.await_batch()
    now[0] = FOREVER_S
    waiting.wake()
    assert batch.result(TIMEOUT_S) == ["a"]


def test_without_a_wait_a_lone_image_starts_at_once() -> None:
    batcher: Batcher[str] = Batcher(BatchLimits(images=8, pixels=1000))
    batcher.put("a", 0, None, 1)
    assert batcher.take() == ["a"]


def test_image_larger_than_the_limit_runs_alone() -> None:
    batcher: Batcher[str] = Batcher(BatchLimits(images=8, pixels=10))
    for name, pixels in (("a", 11), ("b", 5), ("c", 5), ("d", 5)):
        batcher.put(name, 0, None, pixels)
    assert [batcher.take() for _ in range(3)] == [["a"], ["b", "c"], ["d"]]


def test_images_are_padded_to_the_largest_of_the_batch() -> None:
    batcher: Batcher[str] = Batcher(BatchLimits(images=8, pixels=10))
    for name, pixels in (("a", 2), ("b", 2), ("c", 6)):
        batcher.put(name, 0, None, pixels)
    assert [batcher.take() for _ in range(2)] == [["a", "b"], ["c"]]


def test_closed_batcher_needs_and_keeps_no_images() -> None:
    batcher: Batcher[str] = Batcher(BatchLimits(images=1, pixels=10))
    for name in "ab":
        batcher.put(name, 0, None, 1)
    assert batcher.has_enough()
    batcher.close()
    assert not batcher.has_enough()
    batcher.put("c", 0, None, 1)
    assert [batcher.take() for _ in range(3)] == [["a"], ["b"], None]


def test_held_images_are_taken_together() -> None:
    batcher: Batcher[str] = Batcher(BatchLimits(images=8, pixels=100))
    batches: list[list[str] | None] = []
    thread = threading.Thread(target=lambda: batches.append(batcher.take()), daemon=True)
    with batcher.hold():
        thread.start()
        for name in "ab":
            batcher.put(name, 0, None, 1)
        assert batches == []
    thread.join(TIMEOUT_S)
    assert batches == [["a", "b"]]
