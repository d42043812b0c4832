from concurrent.futures import ThreadPoolExecutor

from d2serve.detector.base import Forward, ForwardLog


def test_forwards_are_taken_once_and_in_order() -> None:
    log = ForwardLog()
    log.add(Forward(2, 1.0))
    log.add(Forward(1, 3.0, failed=True))
    assert log.take() == (Forward(2, 1.0), Forward(1, 3.0, failed=True))
    assert log.take() == ()


def test_forwards_of_several_threads_are_all_kept() -> None:
    log = ForwardLog()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda images: log.add(Forward(images, 1.0)), range(1000)))
    assert sorted(forward.images for forward in log.take()) == list(range(1000))
