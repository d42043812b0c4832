"""Limits on the work that waits."""

import math
import threading
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2serve.errors import RequestError
from d2serve.serving.admission import MAX_RETRY_AFTER_S, Admission

NOW = 1000.0
FULL = "the request queue is full"
TIMEOUT_S = 20


@pytest.fixture(autouse=True)
def _fixed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d2serve.serving.admission.time.monotonic", lambda: NOW)


def admission(max_requests: float = math.inf, max_bytes: float = math.inf) -> Admission:
    return Admission(max_requests, max_bytes)


def admit(admission: Admission, *, size: int = 10, wait_s: float = math.inf) -> None:
    admission.admit(size, NOW + wait_s)


def test_requests_beyond_the_limit_are_rejected_until_others_are_finished() -> None:
    full = admission(max_requests=2)
    for _ in range(2):
        admit(full)
    with pytest.raises(RequestError, match=FULL) as raised:
        admit(full)
    assert (raised.value.status, raised.value.code) == (503, "overloaded")
    assert raised.value.headers == {"Retry-After": "1"}
    full.release(1, 10)
    admit(full)
    assert full.images == 2


def test_room_is_checked_without_counting() -> None:
    full = admission(max_requests=1)
    full.check_room()
    full.check_room()
    assert full.images == 0
    admit(full)
    with pytest.raises(RequestError, match=FULL):
        full.check_room()


def test_bytes_beyond_the_limit_are_rejected_until_others_are_finished() -> None:
    full = admission(max_bytes=100)
    admit(full, size=60)
    with pytest.raises(RequestError, match=FULL):
        admit(full, size=41)
    admit(full, size=40)
    full.release(1, 60)
    admit(full, size=60)


def test_lone_request_may_exceed_the_bytes() -> None:
    """The limit on a single request has an error of its own."""
    lone = admission(max_bytes=100)
    admit(lone, size=101)
    assert lone.images == 1


def test_images_of_a_request_do_not_keep_out_other_requests() -> None:
    busy = admission(max_requests=2)
    admit(busy)
    busy.add(63)
    admit(busy)
    assert busy.images == 65


@pytest.mark.parametrize(
    ("images", "seconds_per_image", "retry_after_s"),
    [
        pytest.param(4, 0.0, "1", id="no batch yet"),
        pytest.param(4, 0.1, "1", id="fast"),
        pytest.param(4, 2.5, "10", id="measured"),
        pytest.param(4, 2.6, "11", id="rounded up"),
        pytest.param(4, 1e6, str(MAX_RETRY_AFTER_S), id="at most"),
    ],
)
def test_retry_after_is_the_time_that_the_queue_needs(
    images: int, seconds_per_image: float, retry_after_s: str
) -> None:
    full = admission(max_requests=images)
    if seconds_per_image:
        full.record_batch(2, 2 * seconds_per_image)
    for _ in range(images):
        admit(full)
    with pytest.raises(RequestError, match=FULL) as raised:
        admit(full)
    assert raised.value.headers["Retry-After"] == retry_after_s


def test_rate_follows_the_batches_slowly() -> None:
    measured = admission()
    admit(measured)
    measured.add(9)
    measured.record_batch(2, 2.0)
    assert measured.retry_after_s() == 10
    measured.record_batch(1, 6.0)
    assert measured.retry_after_s() == 20
    for _ in range(100):
        measured.record_batch(1, 6.0)
    assert measured.retry_after_s() == 60


def test_request_whose_turn_comes_after_its_deadline_is_rejected() -> None:
    slow = admission()
    slow.record_batch(1, 1.0)
    for _ in range(3):
        admit(slow)
    with pytest.raises(RequestError, match="would wait too long") as raised:
        admit(slow, wait_s=2.9)
    assert (raised.value.status, raised.value.headers["Retry-After"]) == (503, "3")
    admit(slow, wait_s=3.1)


def test_large_request_delays_the_first_image_of_others_by_one_image() -> None:
    slow = admission()
    slow.record_batch(1, 1.0)
    admit(slow)
    slow.add(63)
    admit(slow, wait_s=1.1)


def test_nothing_waits_before_the_first_request() -> None:
    """A single slow batch does not reject everything from then on."""
    slow = admission()
    slow.record_batch(1, 1e6)
    admit(slow, wait_s=0.1)


def test_close_waits_for_all_requests_and_rejects_later_ones() -> None:
    closing, order, closed = admission(), list[str](), threading.Event()
    admit(closing)

    def close() -> None:
        closing.close()
        order.append("closed")
        closed.set()

    waiting = threading.Event()
    wait_for = closing._changed.wait_for

    def signal_and_wait(condition: object) -> None:
        waiting.set()
        wait_for(condition)  # type: ignore[arg-type]

    closing._changed.wait_for = signal_and_wait  # type: ignore[method-assign,assignment]
    threading.Thread(target=close, daemon=True).start()
    assert waiting.wait(TIMEOUT_S)
    with pytest.raises(RequestError, match="the server is stopping"):
        admit(closing)
    order.append("released")
    closing.release(1, 10)
    assert closed.wait(TIMEOUT_S)
    assert order == ["released", "closed"]


@dataclass(frozen=True)
class Work:
    """A request: its images before and after decoding, and its size."""

    items: int
    decoded: int
    size: int


WORK = st.builds(Work, st.integers(1, 4), st.integers(0, 3), st.integers(0, 60))


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(steps=st.lists(st.one_of(WORK, st.integers(0, 9)), max_size=40))
def test_counts_return_to_zero(steps: list[Work | int]) -> None:
    """Requests come in any order and leave in any other; numbers choose the one that leaves."""
    limited, present = admission(max_requests=3, max_bytes=100), list[tuple[int, int]]()
    for step in steps:
        if isinstance(step, Work):
            _enter(limited, present, step)
        elif present:
            limited.release(*present.pop(step % len(present)))
        assert limited.images == sum(images for images, _ in present)
    for images, size in present:
        limited.release(images, size)
    assert limited.images == 0
    limited.admit(101, math.inf)  # nothing is counted any more
    limited.release(1, 101)
    limited.close()


def _enter(limited: Admission, present: list[tuple[int, int]], work: Work) -> None:
    try:
        limited.admit(work.size, math.inf)
    except RequestError:
        assert len(present) == 3 or sum(size for _, size in present) + work.size > 100
        return
    limited.add(work.items - 1)
    limited.add(work.decoded)
    present.append((work.items + work.decoded, work.size))
    assert len(present) <= 3
