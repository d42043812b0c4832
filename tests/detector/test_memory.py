from handler.detector.memory import FITTING_BEFORE_MORE, MemoryLimit


def test_no_failure_no_limit() -> None:
    assert MemoryLimit().pictures(100) is None


def test_a_failure_halves_what_is_tried_for_pictures_of_any_size() -> None:
    limit = MemoryLimit()
    limit.failed(800)
    assert [limit.pictures(pixels) for pixels in (50, 100, 400, 9000)] == [8, 4, 1, 1]


def test_the_smallest_failure_counts() -> None:
    limit = MemoryLimit()
    limit.failed(400)
    limit.failed(800)
    assert limit.pictures(100) == 2


def test_what_fits_for_long_lets_more_be_tried() -> None:
    limit = MemoryLimit()
    limit.failed(800)
    for _ in range(FITTING_BEFORE_MORE - 1):
        limit.fitted(400)
    assert limit.pictures(100) == 4
    limit.fitted(400)
    assert limit.pictures(100) == 8


def test_small_forwards_say_nothing_about_large_ones() -> None:
    limit = MemoryLimit()
    limit.failed(800)
    for _ in range(2 * FITTING_BEFORE_MORE):
        limit.fitted(200)
    assert limit.pictures(100) == 4


def test_a_failure_starts_the_count_anew() -> None:
    limit = MemoryLimit()
    limit.failed(800)
    for _ in range(FITTING_BEFORE_MORE - 1):
        limit.fitted(400)
    limit.failed(800)
    limit.fitted(400)
    assert limit.pictures(100) == 4
