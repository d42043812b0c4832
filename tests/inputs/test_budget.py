"""Limits on all images of one request together."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from d2serve.errors import RequestError
from d2serve.inputs.budget import RequestBudget
from d2serve.settings import Settings

LIMITS = Settings(max_images_per_request=10, max_request_pixels=100)


def test_request_at_its_limits_has_no_error() -> None:
    budget = RequestBudget(LIMITS)
    for _ in range(10):
        budget.take_images(1)
        budget.take_pixels(10)
    assert budget.error is None


@pytest.mark.parametrize(
    ("method", "count", "taken", "setting"),
    [
        ("take_images", 11, "at least 11 images, the limit is 10", "max_images_per_request"),
        ("take_pixels", 101, "at least 101 pixels in total, the limit is 100", "max_request_"),
    ],
)
def test_exceeded_limit_is_a_413_that_names_the_setting(
    method: str, count: int, taken: str, setting: str
) -> None:
    budget = RequestBudget(LIMITS)
    with pytest.raises(RequestError, match=taken) as raised:
        getattr(budget, method)(count)
    assert (raised.value.status, raised.value.code) == (413, "too_large")
    assert setting in raised.value.hint
    assert raised.value is budget.error


def test_first_error_remains_that_of_the_request() -> None:
    budget = RequestBudget(LIMITS)
    with pytest.raises(RequestError):
        budget.take_images(11)
    first = budget.error
    for take in (budget.take_images, budget.take_pixels):
        with pytest.raises(RequestError) as raised:
            take(1)
        assert raised.value is first


class SlowNumber(int):
    """A number that lets other threads run while it is added."""

    def __radd__(self, other: int) -> int:
        time.sleep(0.0005)
        return int(other) + int(self)


@pytest.mark.parametrize("method", ["take_images", "take_pixels"])
def test_threads_take_no_more_than_the_limit(method: str) -> None:
    budget = RequestBudget(Settings(max_images_per_request=100, max_request_pixels=100))

    def take(_: int) -> bool:
        try:
            getattr(budget, method)(SlowNumber(1))
        except RequestError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(200))) == 100
