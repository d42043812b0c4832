"""Stages of a batch run in parallel."""

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from d2serve.detections import RGBImage
from d2serve.detector.base import InferenceResult, PreprocessedImage
from d2serve.outputs.response import render
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.process import start_executor
from d2serve.settings import Settings
from tests.core.requests import BAD, GOOD, NAMES, first_pixels, pipeline, png_request
from tests.fakes import FakeDetector, metadata_of

TIMEOUT_S = 20


def on_threads(threads: int, detector: FakeDetector) -> Pipeline:
    return Pipeline(detector, metadata_of(*NAMES), Settings(), start_executor(threads))


def test_responses_with_threads_equal_those_without() -> None:
    requests = [*GOOD.values(), *(request for request, _, _ in BAD.values())] * 3
    alone = pipeline().run(requests)
    together = on_threads(4, FakeDetector()).run(requests)
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
    responses = on_threads(3, BarrierDetector(3)).run([png_request(red) for red in (1, 2, 3)])
    assert [first_pixels(response) for response in responses] == [[1], [2], [3]]


class OneByOne(FakeDetector):
    """Runs one image at a time; after the first one waits for a concurrent stage."""

    def __init__(self, awaited: threading.Event) -> None:
        super().__init__()
        self.awaited = awaited

    def stream(self, images: Iterable[PreprocessedImage]) -> Iterator[tuple[int, InferenceResult]]:
        for position, image in enumerate(images):
            if position == 1:
                assert self.awaited.wait(TIMEOUT_S), "no stage ran beside the network"
            ((_, result),) = super().stream([image])
            yield position, result


def test_responses_are_encoded_while_the_network_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = threading.Event()

    def render_and_signal(*arguments: Any) -> bytes:
        body = render(*arguments)
        encoded.set()
        return body

    monkeypatch.setattr("d2serve.serving.pipeline.render", render_and_signal)
    responses = on_threads(2, OneByOne(encoded)).run([png_request(red) for red in (1, 2)])
    assert [first_pixels(response) for response in responses] == [[1], [2]]


class SignalsLast(OneByOne):
    """Signals that the image whose first red value is 3 is being preprocessed.

    It waits until the network has started."""

    def __init__(self) -> None:
        super().__init__(threading.Event())
        self.started = threading.Event()

    def preprocess(self, image: RGBImage) -> PreprocessedImage:
        if image[0, 0, 0] == 3:
            assert self.started.wait(TIMEOUT_S), "the network waited for the last request"
            self.awaited.set()
        return super().preprocess(image)

    def stream(self, images: Iterable[PreprocessedImage]) -> Iterator[tuple[int, InferenceResult]]:
        for entry in super().stream(images):
            self.started.set()
            yield entry


def test_requests_are_decoded_while_the_network_runs() -> None:
    responses = on_threads(2, SignalsLast()).run([png_request(red) for red in (1, 2, 3)])
    assert [first_pixels(response) for response in responses] == [[1], [2], [3]]


def test_single_request_runs_in_the_callers_thread() -> None:
    class ChecksThread(FakeDetector):
        def preprocess(self, image: RGBImage) -> PreprocessedImage:
            assert threading.current_thread() is threading.main_thread()
            return super().preprocess(image)

    (response,) = on_threads(2, ChecksThread()).run([png_request(1)])
    assert first_pixels(response) == [1]
