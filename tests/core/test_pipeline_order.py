"""The order in which images of many requests reach the network."""

import threading
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

from d2serve.messages import HttpRequest
from d2serve.serving.batcher import BATCHES_AHEAD
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.requests import HttpResponse
from tests.bodies import npy_bytes
from tests.core.requests import first_pixels, image, pipeline, png_request, request_of
from tests.core.stepping import TIMEOUT_S, Arrivals, SteppedDetector
from tests.fakes import FakeDetector

MANY = 64
SMALL = 200


def files(count: int, first: int = 0) -> HttpRequest:
    return HttpRequest({}, tuple(png_request(first + n).parts[0] for n in range(count)))


def array(count: int) -> HttpRequest:
    stack = np.stack([image(red, 4, 6) for red in range(count)])
    return request_of(npy_bytes(stack), "application/x-npy")


LARGE = pytest.mark.parametrize("large", [files(MANY), array(MANY)], ids=["files", "array"])


@LARGE
@pytest.mark.parametrize("threads", [1, 3])
def test_large_request_does_not_hold_up_its_neighbour(
    monkeypatch: pytest.MonkeyPatch, large: HttpRequest, threads: int
) -> None:
    """The neighbour waits for the images that are decoded already, and for no others."""
    images_per_forward = 4
    detector, arrivals = SteppedDetector(), Arrivals(monkeypatch)
    served = pipeline(
        detector,
        threads=threads,
        images_per_forward=images_per_forward,
        server_forms_batches=False,
    )
    first = served.submit(large)
    batches = [detector.next_batch()]
    arrivals.wait(len(batches[0]) + BATCHES_AHEAD * images_per_forward)
    neighbour = served.submit(png_request(SMALL))
    while SMALL not in batches[-1]:
        detector.end_batch()
        batches.append(detector.next_batch())
        assert len(batches) < MANY // images_per_forward, "the neighbour comes last"
    assert len(batches) <= 1 + BATCHES_AHEAD + 2
    detector.run_freely()
    assert first_pixels(neighbour.result(TIMEOUT_S)) == [SMALL]
    assert first_pixels(first.result(TIMEOUT_S)) == list(range(MANY))


def test_large_requests_alternate() -> None:
    """The later one does not overtake the images that the earlier one has had so far."""
    detector = SteppedDetector()
    served = pipeline(detector, images_per_forward=4, server_forms_batches=False)
    earlier = served.submit(files(MANY))
    batch = detector.next_batch()
    while max(batch) < MANY // 2:
        detector.end_batch()
        batch = detector.next_batch()
    later = served.submit(files(MANY, first=MANY))
    while max(batch) < MANY:
        detector.end_batch()
        batch = detector.next_batch()
    images: list[int] = []
    while len(images) < 12:
        detector.end_batch()
        images += detector.next_batch()
    assert 4 <= sum(red < MANY for red in images[:12]) <= 8
    detector.run_freely()
    assert first_pixels(earlier.result(TIMEOUT_S)) == list(range(MANY))
    assert first_pixels(later.result(TIMEOUT_S)) == list(range(MANY, 2 * MANY))


def test_endless_small_requests_do_not_starve_a_large_one() -> None:
    """Clients that send their next request at once; each has an image for each of the large one."""
    clients, images = 40, 8
    limit = 2 * images * (clients + 1)
    served = pipeline(images_per_forward=2, threads=2, server_forms_batches=False)
    lock, ended = threading.Lock(), threading.Event()
    responses = 0

    def next_request(future: "Future[HttpResponse]") -> None:
        nonlocal responses
        with lock:
            responses += 1
            is_over = ended.is_set() or responses > 2 * limit
        assert future.result().status == 200
        if not is_over:
            served.submit(png_request(SMALL)).add_done_callback(next_request)

    for _ in range(clients):
        served.submit(png_request(SMALL)).add_done_callback(next_request)
    response = served.submit(files(images)).result(TIMEOUT_S)
    count = responses
    ended.set()
    assert first_pixels(response) == list(range(images))
    assert count <= limit


def test_requests_of_one_size_are_run_in_order_of_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, arrivals = SteppedDetector(), Arrivals(monkeypatch)
    served = pipeline(detector, images_per_forward=3, server_forms_batches=False)
    futures = [served.submit(png_request(0))]
    assert detector.next_batch() == [0]
    futures += [served.submit(png_request(red)) for red in range(1, 7)]
    arrivals.wait(7)
    detector.run_freely()
    assert [detector.next_batch() for _ in range(2)] == [[1, 2, 3], [4, 5, 6]]
    assert [first_pixels(each.result(TIMEOUT_S)) for each in futures] == [[n] for n in range(7)]


def test_network_takes_all_that_waits_when_it_becomes_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector, arrivals = SteppedDetector(), Arrivals(monkeypatch)
    served = pipeline(detector, images_per_forward=8, server_forms_batches=False)
    futures = [served.submit(png_request(1))]
    assert detector.next_batch() == [1]
    futures += [served.submit(request) for request in (png_request(2), files(3), png_request(9))]
    arrivals.wait(6)
    detector.end_batch()
    assert sorted(detector.next_batch()) == [0, 1, 2, 2, 9]
    detector.run_freely()
    assert [future.result(TIMEOUT_S).status for future in futures] == [200] * 4


def test_batch_waits_for_others_if_the_settings_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, waits = FakeDetector(), threading.Event()

    def expects_more(_: Pipeline) -> bool:
        waits.set()
        return True

    monkeypatch.setattr(Pipeline, "_expects_more", expects_more)
    served = pipeline(
        detector, images_per_forward=2, batch_wait_ms=600_000, server_forms_batches=False
    )
    first = served.submit(png_request(1))
    assert waits.wait(TIMEOUT_S)
    second = served.submit(png_request(2))
    assert [first_pixels(each.result(TIMEOUT_S)) for each in (first, second)] == [[1], [2]]
    assert detector.images_per_call == [2]


def test_servers_batch_waits_for_all_its_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request is ready before the second one is submitted."""
    detector, arrivals, expected = FakeDetector(), Arrivals(monkeypatch), list[bool]()
    served = pipeline(detector)

    def check() -> bool:
        if not expected:
            arrivals.wait(1)
            # The thread that prepared the image has nothing else to do.
            prepared = threading.Event()
            served._pool.encode(prepared.set)
            assert prepared.wait(TIMEOUT_S)
            expected.append(served._expects_more())
        return False

    second = replace(png_request(2), is_disconnected=check)
    assert [first_pixels(each) for each in served.run([png_request(1), second])] == [[1], [2]]
    assert expected == [True]
    assert sum(detector.images_per_call) == 2
