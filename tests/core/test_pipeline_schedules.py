"""Generated schedules: whatever requests arrive, each gets its own response, in fair order."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from d2serve.messages import HttpRequest
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.requests import HttpResponse
from tests.core.requests import pipeline
from tests.core.schedules import (
    MAX_IMAGES,
    SIZES_HW,
    PlannedRequest,
    RecordingDetector,
    requests,
    require_expected,
)
from tests.core.stepping import TIMEOUT_S

MAX_STEPS = 30
# A step of a schedule that lets the network end a batch.
END_BATCH = "end batch"
Step = PlannedRequest | str


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    """Failing images are logged."""
    logging.getLogger("d2serve").setLevel(logging.CRITICAL + 1)
    yield
    logging.getLogger("d2serve").setLevel(logging.NOTSET)


class Run:
    """A schedule, and what it led to."""

    def __init__(self, served: Pipeline, detector: RecordingDetector) -> None:
        self.served = served
        self.detector = detector
        # Each request with the red value of its first image.
        self.submitted: list[tuple[PlannedRequest, int, Future[HttpResponse]]] = []
        self._next_red = 1

    def follow(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, str):
                self.detector.end_batch()
            elif self._next_red + len(step.images) <= MAX_IMAGES:
                self._submit(step)
        self.detector.run_freely()

    def _submit(self, planned: PlannedRequest) -> None:
        request: HttpRequest = planned.request(self._next_red)
        self.submitted.append((planned, self._next_red, self.served.submit(request)))
        self._next_red += len(planned.images)

    def check_responses(self) -> None:
        for planned, first, future in self.submitted:
            response = future.result(TIMEOUT_S)
            event(f"status {response.status}")
            require_expected(planned, first, response)
        assert self.served.queued == 0

    def check_batches(self, max_images: int, max_pixels: int) -> None:
        for batch in self.detector.batches:
            sizes = {size_hw for _, size_hw in batch}
            assert len(sizes) == 1, "sizes are mixed"
            [(height, width)] = sizes
            assert 1 <= len(batch) <= max_images
            assert len(batch) == 1 or len(batch) * height * width <= max_pixels
        reds = [red for batch in self.detector.batches for red, _ in batch]
        assert len(reds) == len(set(reds)), "an image was run twice"

    def check_order(self) -> None:
        """Images of one size of a request are run in order, and so are single images."""
        batch_of = {
            red: number for number, batch in enumerate(self.detector.batches) for red, _ in batch
        }
        single: dict[tuple[int, int], list[int]] = {size: [] for size in SIZES_HW}
        for planned, first, _ in self.submitted:
            for size in SIZES_HW:
                own = [
                    batch_of[red]
                    for red, image in enumerate(planned.images, first)
                    if image.size_hw == size and red in batch_of
                ]
                assert own == sorted(own), "the images of a request are reordered"
                if len(planned.images) == 1:
                    single[size] += own
        for numbers in single.values():
            assert numbers == sorted(numbers), "the requests of a client are reordered"


SCHEDULES = st.lists(st.one_of(requests(), requests(), st.just(END_BATCH)), max_size=MAX_STEPS)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    steps=SCHEDULES,
    threads=st.integers(1, 3),
    max_images=st.integers(1, 4),
    max_pixels=st.sampled_from([1, 12, 18, 1000]),
    batch_wait_ms=st.sampled_from([0, 0, 5]),
)
def test_each_request_gets_its_own_response(
    steps: Sequence[Step], threads: int, max_images: int, max_pixels: int, batch_wait_ms: int
) -> None:
    detector = RecordingDetector()
    served = pipeline(
        detector,
        threads=threads,
        server_forms_batches=False,
        images_per_forward=max_images,
        pixels_per_forward=max_pixels,
        batch_wait_ms=batch_wait_ms,
    )
    run = Run(served, detector)
    try:
        run.follow(steps)
        run.check_responses()
        run.check_batches(max_images, max_pixels)
        if threads == 1:  # several threads end their images in any order
            run.check_order()
    finally:
        detector.run_freely()
        served.close()


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(batch=st.lists(requests(), max_size=8), threads=st.integers(1, 3))
def test_each_request_of_a_servers_batch_gets_its_own_response(
    batch: Sequence[PlannedRequest], threads: int
) -> None:
    detector = RecordingDetector()
    detector.run_freely()
    served = pipeline(detector, threads=threads, images_per_forward=3)
    firsts = [1 + sum(len(each.images) for each in batch[:index]) for index in range(len(batch))]
    try:
        responses = served.run([p.request(first) for p, first in zip(batch, firsts, strict=True)])
        for planned, first, response in zip(batch, firsts, responses, strict=True):
            require_expected(planned, first, response)
        assert served.queued == 0
    finally:
        served.close()
