from d2serve.detector.batching import FITTING_BEFORE_MORE, MemoryLimit


def limited_to(pixels: int) -> MemoryLimit:
    limit = MemoryLimit()
    limit.ran(2 * pixels, together=pixels)
    return limit


def fit(limit: MemoryLimit, pixels: int, times: int) -> None:
    for _ in range(times):
        limit.ran(pixels, together=pixels)


def test_no_failure_no_limit() -> None:
    limit = MemoryLimit()
    fit(limit, 400, 2 * FITTING_BEFORE_MORE)
    assert limit.pictures(100) is None


def test_what_has_fitted_is_the_limit_for_pictures_of_any_size() -> None:
    limit = limited_to(400)
    assert [limit.pictures(pixels) for pixels in (50, 100, 400, 9000)] == [8, 4, 1, 1]


def test_a_limit_that_is_still_too_much_is_lowered() -> None:
    limit = limited_to(400)
    limit.ran(400, together=200)
    assert limit.pictures(100) == 2


def test_what_fits_for_long_lets_more_be_tried() -> None:
    limit = limited_to(400)
    fit(limit, 400, FITTING_BEFORE_MORE - 1)
    assert limit.pictures(100) == 4
    fit(limit, 400, 1)
    assert limit.pictures(100) == 8


def test_small_forwards_say_nothing_about_large_ones() -> None:
    limit = limited_to(400)
    fit(limit, 200, 2 * FITTING_BEFORE_MORE)
    assert limit.pictures(100) == 4


def test_a_failure_starts_the_count_anew() -> None:
    limit = limited_to(400)
    fit(limit, 400, FITTING_BEFORE_MORE - 1)
    limit.ran(800, together=400)
    fit(limit, 400, 1)
    assert limit.pictures(100) == 4
