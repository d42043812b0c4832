"""Turns of the images of large and small requests."""

import heapq
from itertools import count, pairwise

import pytest

from d2serve.serving.fair_queue import FairClock


def clock_of(requests: int = 1) -> FairClock:
    return FairClock(lambda: requests)


def test_images_of_a_request_have_consecutive_turns() -> None:
    assert clock_of().turns(3) == range(3)


def test_new_request_starts_at_the_current_turn() -> None:
    clock = clock_of()
    clock.advance(5)
    assert clock.turns(2) == range(5, 7)


def test_late_images_do_not_turn_the_clock_back() -> None:
    clock = clock_of(requests=9)
    clock.advance(5)
    clock.advance(2)
    assert clock.turns(1) == range(5, 6)


def test_turn_ends_when_each_request_had_an_image() -> None:
    clock = clock_of(requests=3)
    starts = []
    for _ in range(7):
        clock.advance(0)
        starts.append(clock.turns(1).start)
    assert starts == [0, 0, 0, 1, 1, 1, 2]


def test_lone_request_has_its_own_pace() -> None:
    clock = clock_of(requests=1)
    starts = []
    for turn in clock.turns(4):
        clock.advance(turn)
        starts.append(clock.turns(1).start)
    assert starts == [0, 1, 2, 3]


@pytest.mark.parametrize("clients", [1, 8, 40])
def test_endless_small_requests_do_not_starve_a_large_one(clients: int) -> None:
    """Each client sends its next request when it has its response."""
    large = 8
    clock, numbers = clock_of(requests=clients + 1), count()
    queue = [(0, next(numbers), "small") for _ in range(clients)]
    queue += [(turn, next(numbers), "large") for turn in clock.turns(large)]
    heapq.heapify(queue)
    waited: list[int] = []
    for processed in range(1000):
        turn, _, kind = heapq.heappop(queue)
        clock.advance(turn)
        if kind == "large":
            waited.append(processed)
        else:
            heapq.heappush(queue, (clock.turns(1).start, next(numbers), "small"))
    assert len(waited) == large
    gaps = [after - before for before, after in pairwise(waited)]
    assert max(gaps) <= 2 * (clients + 1)


def test_large_request_does_not_hold_up_a_small_one() -> None:
    clock, numbers = clock_of(requests=2), count()
    queue = [(turn, next(numbers), "large") for turn in clock.turns(64)]
    for _ in range(10):
        clock.advance(heapq.heappop(queue)[0])
    heapq.heappush(queue, (clock.turns(1).start, next(numbers), "small"))
    assert heapq.heappop(queue)[2] == "small"
