"""The thread that runs the detector."""

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch

from d2serve.detector.base import Failure, InferenceResult, PreprocessedImage
from d2serve.errors import DeviceLostError
from d2serve.messages import HttpRequest
from d2serve.serving.batcher import Batcher, BatchLimits
from d2serve.serving.inference import InferenceThread
from d2serve.serving.request_log import received
from d2serve.serving.request_state import ImageState, RequestState, Slot
from tests.core.requests import image
from tests.fakes import FakeDetector

TIMEOUT_S = 20
Run = Callable[[Sequence[PreprocessedImage]], list[InferenceResult]]


class RunsWith(FakeDetector):
    """Runs images with a function."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run_with = run

    def run(self, images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
        return self._run_with(images)


class Listener:
    """Records the results; requests whose id is `left` are not awaited."""

    def __init__(self) -> None:
        self.outputs: list[object] = []
        self.taken = 0
        self.lost: DeviceLostError | None = None

    def is_awaited(self, request: RequestState) -> bool:
        return request.received.request_id != "left"

    def on_taken(self) -> None:
        self.taken += 1

    def on_results(
        self, batch: Sequence[Slot], results: Sequence[InferenceResult], elapsed_s: float
    ) -> None:
        assert len(batch) == len(results)
        self.outputs += [
            result.output if isinstance(result.output, Failure) else "detections"
            for result in results
        ]

    def on_device_lost(self, error: DeviceLostError) -> None:
        self.lost = error


class Served:
    """An inference thread with its queue and listener."""

    def __init__(self, detector: FakeDetector, images: int = 1) -> None:
        self.detector = detector
        self.listener = Listener()
        self.batcher: Batcher[Slot] = Batcher(BatchLimits(images, 10**9))
        self.thread = InferenceThread(detector, self.batcher, self.listener)

    def put(self, request_id: str = "1") -> None:
        request = HttpRequest({}, (), request_id=request_id)
        state = RequestState(request, received(request))
        slot = Slot(state, ImageState(), self.detector.preprocess(image(7)))
        self.batcher.put(slot, 0, None, 1)

    def close(self) -> None:
        self.batcher.close()
        self.thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Run], Served]]:
    """Starts threads, which end with the test."""
    opened: list[Served] = []

    def serve(run: Run) -> Served:
        opened.append(Served(RunsWith(run)))
        return opened[-1]

    yield serve
    for served in opened:
        served.close()


def one_result(images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
    return FakeDetector().run(images)


def failing_first(failure: Run) -> Run:
    """A detector whose first call fails."""
    calls = iter([failure])
    return lambda images: next(calls, one_result)(images)


def no_results(_: Sequence[PreprocessedImage]) -> list[InferenceResult]:
    return []


def raises(_: Sequence[PreprocessedImage]) -> list[InferenceResult]:
    raise ValueError("cause")


@pytest.mark.parametrize("failure", [no_results, raises])
def test_detector_error_fails_the_batch_and_not_the_thread(
    serve: Callable[[Run], Served], caplog: pytest.LogCaptureFixture, failure: Run
) -> None:
    served = serve(failing_first(failure))
    for _ in range(2):
        served.put()
    served.close()
    assert served.listener.outputs == [Failure.ERROR, "detections"]
    assert "ValueError" in caplog.text


def test_images_that_nobody_awaits_are_not_run(serve: Callable[[Run], Served]) -> None:
    served = serve(one_result)
    for request_id in ("left", "1", "left"):
        served.put(request_id)
    served.close()
    assert served.listener.outputs == ["detections"]
    assert served.listener.taken == 3


def test_lost_device_ends_the_thread(
    serve: Callable[[Run], Served], caplog: pytest.LogCaptureFixture
) -> None:
    lost = DeviceLostError("gone")

    def lose(_: Sequence[PreprocessedImage]) -> list[InferenceResult]:
        raise lost

    served = serve(lose)
    served.put()
    served.thread.join()
    assert served.listener.lost is lost
    assert served.listener.outputs == []
    assert served.thread.forward_seconds() == 0.0
    assert "the device is lost" in caplog.text


def test_error_of_the_listener_ends_the_thread_like_a_lost_device(
    serve: Callable[[Run], Served], caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise requests would wait for ever, and the server would look healthy."""
    served = serve(one_result)
    served.listener.outputs = None  # type: ignore[assignment]
    served.put()
    served.thread.join()
    assert isinstance(served.listener.lost, DeviceLostError)
    assert "the inference thread failed" in caplog.text


def test_forward_seconds_are_those_of_the_running_batch(serve: Callable[[Run], Served]) -> None:
    running, may_end = threading.Event(), threading.Event()

    def wait(images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
        running.set()
        assert may_end.wait(TIMEOUT_S)
        return one_result(images)

    served = serve(wait)
    assert served.thread.forward_seconds() == 0.0
    served.put()
    assert running.wait(TIMEOUT_S)
    first = served.thread.forward_seconds()
    assert 0 < first < served.thread.forward_seconds()
    may_end.set()
    served.close()
    assert served.thread.forward_seconds() == 0.0


def test_idle_thread_keeps_no_images(serve: Callable[[Run], Served]) -> None:
    served, freed = serve(one_result), threading.Event()
    request = HttpRequest({}, ())
    slot = Slot(RequestState(request, received(request)), ImageState(), _preprocessed())
    weakref.finalize(slot.preprocessed, freed.set)
    served.batcher.put(slot, 0, None, 1)
    del slot
    assert freed.wait(TIMEOUT_S)


def _preprocessed() -> PreprocessedImage:
    return FakeDetector().preprocess(image(7))


def test_thread_has_the_creators_number_of_torch_threads() -> None:
    before, seen = torch.get_num_threads(), list[int]()

    def record(images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
        seen.append(torch.get_num_threads())
        return one_result(images)

    torch.set_num_threads(3)
    try:
        served = Served(RunsWith(record))
        torch.set_num_threads(2)
        served.put()
        served.close()
    finally:
        torch.set_num_threads(before)
    assert seen == [3]
