"""Stages of different images run in parallel."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from d2serve.detections import RGBImage
from d2serve.detector.base import InferenceResult, PreprocessedImage
from d2serve.messages import HttpRequest
from d2serve.outputs.rendered import Rendered
from d2serve.outputs.response import render
from d2serve.serving import stages
from tests.bodies import npy_bytes
from tests.core.requests import (
    BAD,
    GOOD,
    first_pixels,
    image,
    pipeline,
    png_request,
    request_of,
)
from tests.fakes import FakeDetector

TIMEOUT_S = 20
THREADS = 4
MANY = 64


def test_responses_with_threads_equal_those_without() -> None:
    requests = [*GOOD.values(), *(request for request, _, _ in BAD.values())] * 3
    alone = pipeline().run(requests)
    together = pipeline(threads=THREADS, images_per_forward=8).run(requests)
    assert [(r.status, r.content_type, r.body) for r in together] == [
        (r.status, r.content_type, r.body) for r in alone
    ]


class BarrierDetector(FakeDetector):
    """Preprocesses images only once `parties` of them are being preprocessed."""

    def __init__(self, parties: int) -> None:
        super().__init__()
        self.barrier = threading.Barrier(parties)

    def preprocess(self, image: RGBImage) -> PreprocessedImage:
        self.barrier.wait(TIMEOUT_S)
        return super().preprocess(image)


def test_requests_are_decoded_in_parallel() -> None:
    served = pipeline(BarrierDetector(3), threads=3)
    responses = served.run([png_request(red) for red in (1, 2, 3)])
    assert [first_pixels(response) for response in responses] == [[1], [2], [3]]


def files(count: int) -> HttpRequest:
    return HttpRequest({}, tuple(png_request(red).parts[0] for red in range(count)))


def array(count: int) -> HttpRequest:
    stack = np.stack([image(red, 4, 6) for red in range(count)])
    return request_of(npy_bytes(stack), "application/x-npy")


@pytest.mark.parametrize("request_of_many", [files(MANY), array(MANY)], ids=["files", "array"])
def test_lone_request_is_decoded_on_all_threads(request_of_many: HttpRequest) -> None:
    """Each thread has an image at the same time, again and again."""
    served = pipeline(BarrierDetector(THREADS), threads=THREADS, server_forms_batches=False)
    response = served.submit(request_of_many).result(TIMEOUT_S)
    assert first_pixels(response) == list(range(MANY))


def test_responses_are_encoded_while_the_network_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = threading.Event()

    class WaitsForTheFirst(FakeDetector):
        """Runs the second image once the response of the first one is encoded."""

        def run(self, images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
            if self.images_per_call:
                assert encoded.wait(TIMEOUT_S), "no response was encoded beside the network"
            return super().run(images)

    def render_and_signal(*arguments: Any) -> Rendered:
        rendered = render(*arguments)
        encoded.set()
        return rendered

    monkeypatch.setattr(stages, "render", render_and_signal)
    served = pipeline(WaitsForTheFirst(), images_per_forward=1)
    responses = served.run([png_request(red) for red in (1, 2)])
    assert [first_pixels(response) for response in responses] == [[1], [2]]


def test_requests_are_decoded_while_the_network_runs() -> None:
    running, preprocessed = threading.Event(), threading.Event()

    class WaitsForTheSecond(FakeDetector):
        """Ends the forward pass of the first image once the second one is preprocessed."""

        def preprocess(self, image: RGBImage) -> PreprocessedImage:
            if image[0, 0, 0] == 2:
                assert running.wait(TIMEOUT_S), "the network waited for the second request"
                preprocessed.set()
            return super().preprocess(image)

        def run(self, images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
            running.set()
            assert preprocessed.wait(TIMEOUT_S), "no image was decoded beside the network"
            return super().run(images)

    served = pipeline(WaitsForTheSecond(), images_per_forward=1)
    responses = served.run([png_request(red) for red in (1, 2)])
    assert [first_pixels(response) for response in responses] == [[1], [2]]


def test_idle_network_starts_at_once() -> None:
    """A lone image does not wait for others, although others are being decoded."""
    started = threading.Event()

    class SecondWaits(FakeDetector):
        def preprocess(self, image: RGBImage) -> PreprocessedImage:
            if image[0, 0, 0] == 2:
                assert started.wait(TIMEOUT_S), "the network waited for the second image"
            return super().preprocess(image)

        def run(self, images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
            started.set()
            return super().run(images)

    detector = SecondWaits()
    served = pipeline(detector, threads=2, server_forms_batches=False)
    futures = [served.submit(png_request(red)) for red in (1, 2)]
    assert [first_pixels(future.result(TIMEOUT_S)) for future in futures] == [[1], [2]]
    assert detector.images_per_call == [1, 1]
