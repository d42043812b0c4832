"""Pipelines are closed, or lose their device; no request is left without an outcome."""

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace

import pytest

from d2serve.detections import RGBImage
from d2serve.detector.base import InferenceResult, PreprocessedImage
from d2serve.errors import DeviceLostError
from d2serve.messages import HttpRequest, Part
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.requests import HttpResponse
from tests.bodies import image_bytes, noise
from tests.core.requests import (
    BAD,
    GOOD,
    MAX_PIXELS,
    first_pixels,
    pipeline,
    png_request,
    require_error,
)
from tests.core.stepping import TIMEOUT_S, Arrivals, SteppedDetector
from tests.fakes import FakeDetector

FILES = HttpRequest({}, GOOD["png"].parts * 8)


def closing(served: Pipeline) -> threading.Thread:
    thread = threading.Thread(target=served.close, daemon=True)
    thread.start()
    return thread


def require_closed(thread: threading.Thread) -> None:
    thread.join(TIMEOUT_S)
    assert not thread.is_alive(), "the pipeline does not close"


def test_close_finishes_the_submitted_requests() -> None:
    detector, order = SteppedDetector(), list[str]()
    served = pipeline(
        detector,
        threads=2,
        server_forms_batches=False,
        images_per_forward=2,
        max_image_pixels=MAX_PIXELS,
    )
    requests = [*GOOD.values(), FILES, *(request for request, _, _ in BAD.values())]
    futures = [served.submit(request) for request in requests]
    for future in futures:
        future.add_done_callback(lambda _: order.append("response"))
    detector.next_batch()
    thread = closing(served)
    detector.run_freely()
    require_closed(thread)
    assert order == ["response"] * len(requests)
    assert [future.result(0).status for future in futures] == [
        *[200] * (len(GOOD) + 1),
        *(status for _, status, _ in BAD.values()),
    ]
    assert served.queued == 0


def test_closed_pipeline_rejects_requests_and_has_no_threads() -> None:
    before = set(threading.enumerate())
    served = pipeline(threads=3)
    assert len(set(threading.enumerate()) - before) == 4
    served.close()
    assert set(threading.enumerate()) <= before
    response = served.submit(png_request(1)).result(0)
    require_error(response, 503, "overloaded")
    assert b"the server is stopping" in response.body
    served.close()


def test_request_that_is_submitted_during_the_close_is_not_lost() -> None:
    """The close happens while the request is being checked."""
    served = pipeline()

    def close() -> bool:
        require_closed(closing(served))
        return False

    request = replace(png_request(1), is_disconnected=close)
    require_error(served.submit(request).result(TIMEOUT_S), 503, "overloaded")


def test_every_request_that_races_with_the_close_has_a_response() -> None:
    for _ in range(20):
        served = pipeline(threads=2, server_forms_batches=False)
        start, statuses = threading.Barrier(4), list[int]()

        def client(served: Pipeline = served, start: threading.Barrier = start) -> None:
            start.wait(TIMEOUT_S)
            responses = [served.submit(png_request(1)) for _ in range(10)]
            statuses.extend(response.result(TIMEOUT_S).status for response in responses)  # noqa: B023

        clients = [threading.Thread(target=client) for _ in range(3)]
        for thread in clients:
            thread.start()
        start.wait(TIMEOUT_S)
        served.close()
        for thread in clients:
            thread.join(TIMEOUT_S)
        assert len(statuses) == 30
        assert set(statuses) <= {200, 503}
        assert served.queued == 0


def require_healthy(served: Pipeline, *, is_healthy: bool) -> None:
    assert served.is_healthy is is_healthy


class LosesItsDevice(SteppedDetector):
    """Loses the device at the end of the first batch."""

    def run(self, images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
        super().run(images)
        raise DeviceLostError("CUDA error: unspecified launch failure")


def require_lost(future: "Future[HttpResponse]") -> None:
    with pytest.raises(DeviceLostError, match="unspecified launch failure"):
        future.result(TIMEOUT_S)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Lost devices are logged."""
    logging.getLogger("d2serve").setLevel(logging.CRITICAL + 1)
    yield
    logging.getLogger("d2serve").setLevel(logging.NOTSET)


@pytest.mark.parametrize("images_per_forward", [1, 100])
def test_lost_device_ends_all_requests_and_later_ones(
    monkeypatch: pytest.MonkeyPatch, images_per_forward: int
) -> None:
    """Some wait for the network, the others for decoding if a batch has one image."""
    detector, arrivals = LosesItsDevice(), Arrivals(monkeypatch)
    served = pipeline(
        detector, server_forms_batches=False, images_per_forward=images_per_forward, threads=1
    )
    first = served.submit(png_request(1))
    detector.next_batch()
    arrivals.wait(1)
    waiting = [served.submit(request) for request in (FILES, GOOD["npy-of-two"], FILES)]
    arrivals.wait(2)
    require_healthy(served, is_healthy=True)
    detector.run_freely()
    for future in (first, *waiting):
        require_lost(future)
    require_healthy(served, is_healthy=False)
    require_lost(served.submit(png_request(2)))
    require_lost(served.submit(FILES))
    assert served.queued == 0
    require_closed(closing(served))
    assert served.forward_seconds() == 0.0


@pytest.mark.parametrize("name", ["json-of-two", "npy-of-two"])
def test_device_is_lost_while_a_request_is_read(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Its images are counted after it has been given up."""
    detector, lost = LosesItsDevice(), threading.Event()
    served = pipeline(detector, server_forms_batches=False, threads=2)
    stage = "parse" if name == "json-of-two" else "decode"
    original = getattr(served.stages, stage)
    first = served.submit(png_request(1))
    detector.next_batch()

    def slow(*arguments: object) -> object:
        result = original(*arguments)
        assert lost.wait(TIMEOUT_S)
        return result

    monkeypatch.setattr(served.stages, stage, slow)
    second = served.submit(GOOD[name])
    detector.run_freely()
    require_lost(first)
    require_lost(second)
    lost.set()
    require_closed(closing(served))
    assert served.queued == 0


def test_nothing_is_counted_when_all_requests_have_ended() -> None:
    class Fails(FakeDetector):
        def preprocess(self, image: RGBImage) -> PreprocessedImage:
            if image[0, 0, 0] == 50:
                raise ValueError
            return super().preprocess(image)

        def run(self, images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
            if any(each.image[0, 0, 0] == 10 for each in images):
                raise ValueError
            return super().run(images)

    served = pipeline(
        Fails(), threads=3, images_per_forward=3, server_forms_batches=False, max_queued_requests=20
    )
    left = replace(GOOD["npy-of-two"], is_disconnected=lambda: True)
    late = replace(GOOD["json-of-two"], deadline=1.0)
    only_one = HttpRequest({"accept": "image/png"}, GOOD["npy-of-two"].parts)
    requests = [
        *(request for request, _, _ in BAD.values()),
        *GOOD.values(),
        *(left, late, only_one, FILES),
    ]
    futures = [served.submit(request) for request in requests * 5]
    statuses = {future.result(TIMEOUT_S).status for future in futures}
    assert statuses >= {200, 400, 499, 500, 503}
    assert served.queued == 0
    served.close()
    response = served.submit(png_request(1)).result(0)
    assert response.status == 503


def test_callback_may_submit_the_next_request() -> None:
    served, done = pipeline(server_forms_batches=False), threading.Event()
    reds: list[float] = []

    def next_request(future: "Future[HttpResponse]") -> None:
        reds.extend(first_pixels(future.result()))
        if len(reds) == 3:
            done.set()
        else:
            served.submit(png_request(len(reds) + 1)).add_done_callback(next_request)

    served.submit(png_request(1)).add_done_callback(next_request)
    assert done.wait(TIMEOUT_S)
    assert reds == [1, 2, 3]


def test_device_lost_while_decoding_ends_all_requests() -> None:
    """nvJPEG decodes on the network's device."""

    def decode(body: bytes) -> RGBImage:
        raise DeviceLostError("CUDA error: unspecified launch failure")

    served = pipeline(decode_jpeg=decode)
    jpeg = HttpRequest({}, (Part("", image_bytes(noise(8, 8, 3), "JPEG")),))
    require_lost(served.submit(jpeg))
    require_healthy(served, is_healthy=False)
    assert served.queued == 0
    require_lost(served.submit(png_request(1)))
