"""Process HTTP requests: parse, decode, run the network in batches, encode."""

import atexit
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from threading import Lock
from typing import Concatenate, ParamSpec

from d2serve.detections import Detections
from d2serve.detector.base import Detector, InferenceResult
from d2serve.errors import DeviceLostError, RequestError
from d2serve.inputs.jpeg_decoders import JpegDecoder, decode_on_cpu
from d2serve.messages import HttpRequest
from d2serve.metadata import ModelMetadata
from d2serve.serving.admission import Admission
from d2serve.serving.batcher import Batcher, BatchLimits
from d2serve.serving.fair_queue import FairClock
from d2serve.serving.inference import InferenceThread
from d2serve.serving.log_context import request_context
from d2serve.serving.reporter import SILENT, Reporter
from d2serve.serving.request_log import received
from d2serve.serving.request_state import ImageState, RequestState, Slot, detections_or_error
from d2serve.serving.requests import HttpResponse, error_response
from d2serve.serving.stage_pool import StagePool, Task
from d2serve.serving.stages import Stages, client_timeout_s, guarded
from d2serve.settings import Settings

logger = logging.getLogger(__name__)
# Where the server forms the batches, the images of a batch arrive together: the network waits so
# long at most, in seconds, for those that are still being decoded.
DECODING_WAIT_S = 0.5
Arguments = ParamSpec("Arguments")


class Pipeline:
    """Serves requests with one detector, which runs in a thread of its own.

    The image is the unit of decoding, batching and errors: images of many requests share batches,
    and an error stays with its image or request.

    Args:
        detector: runs in the inference thread; only its `preprocess` runs in others.
        model: the model's metadata.
        settings: the operator's settings.
        reporter: publishes metrics and writes the request log.
        threads: number of threads that parse, decode and encode, at least 1.
        decode_jpeg: see `decode_image`.
        server_forms_batches: whether the server submits the requests of one batch, waits for the
            responses, and queues other requests itself.

    Raises:
        SettingsError: a default option in the settings is not valid for the model.
    """

    def __init__(
        self,
        detector: Detector,
        model: ModelMetadata,
        settings: Settings,
        *,
        reporter: Reporter = SILENT,
        threads: int = 1,
        decode_jpeg: JpegDecoder = decode_on_cpu,
        server_forms_batches: bool = False,
    ) -> None:
        self.detector = detector
        self.model = model
        self.settings = settings
        self.reporter = reporter
        self.stages = Stages(detector, model, settings, decode_jpeg)
        self._active: set[RequestState] = set()
        self._clock = FairClock(lambda: len(self._active))
        self._lock = Lock()
        self._device_error: DeviceLostError | None = None
        self._server_forms_batches = server_forms_batches
        if server_forms_batches:
            self._admission, wait_s = Admission(math.inf, math.inf), DECODING_WAIT_S
        else:
            self._admission = Admission(settings.max_queued_requests, settings.max_queued_bytes)
            wait_s = settings.batch_wait_ms / 1000
        limits = BatchLimits(settings.images_per_forward, settings.pixels_per_forward, wait_s)
        self._batcher: Batcher[Slot] = Batcher(limits, self._expects_more)
        self._pool = StagePool(
            threads,
            may_decode=lambda: not self._batcher.has_enough(),
            on_prepared=self._batcher.wake,
        )
        self._inference = InferenceThread(detector, self._batcher, self)
        # Threads that compute while the interpreter ends would abort the process.
        atexit.register(self._end_threads)

    def submit(self, request: HttpRequest) -> "Future[HttpResponse]":
        """Start a request and return at once; may be called from any thread.

        Returns:
            A future that receives the response, also for an error. Only if the device is lost, it
            receives the exception DeviceLostError.
        """
        state = RequestState(request, received(request))
        with request_context(state.received.request_id):
            error = guarded(lambda: self._admit(state))
            if error is not None:
                self._finish(state, error)
        if not state.is_finished:
            [turn] = self._clock.turns(1)
            self._pool.parse(self._task(self._parse, state, turn), turn)
        return state.future

    def run(self, requests: Sequence[HttpRequest]) -> list[HttpResponse]:
        """Process requests; one response for each, in order."""
        with self._pool.more_follow():
            futures = [self.submit(request) for request in requests]
        return [future.result() for future in futures]

    def run_together(self, requests: Sequence[HttpRequest]) -> list[HttpResponse]:
        """Process requests of one image each, at most `images_per_forward`, in one batch."""
        with self._batcher.hold():
            futures = [self.submit(request) for request in requests]
            self._pool.wait_until_prepared()
        return [future.result() for future in futures]

    def check_room(self) -> None:
        """Check that a request would be accepted now, before its body is received.

        Raises:
            RequestError: 503, the queue is full or the pipeline is closed.
        """
        self._admission.check_room()

    @property
    def queued(self) -> int:
        """Number of images that wait or are being processed."""
        return self._admission.images

    @property
    def is_healthy(self) -> bool:
        """True until the device is lost."""
        return self._device_error is None

    def forward_seconds(self) -> float:
        """Time in seconds that the current forward pass has taken so far; 0 if none runs."""
        return self._inference.forward_seconds()

    def close(self) -> None:
        """Finish the submitted requests and end the threads; later requests get a 503."""
        self._admission.close()
        self._end_threads()
        atexit.unregister(self._end_threads)

    def _end_threads(self) -> None:
        self._batcher.close()
        self._pool.close()
        self._inference.join()

    def _expects_more(self) -> bool:
        """Return whether more images may join the batch that is being formed."""
        return not self._server_forms_batches or self._pool.preparing > 0

    def _admit(self, state: RequestState) -> None:
        """Count a request that is accepted.

        Raises:
            RequestError: it is rejected.
        """
        state.limit_wait(client_timeout_s(state.request.headers))
        state.limit_wait(self.settings.longest_wait_seconds or math.inf)
        state.require_client()
        self._admission.admit(state.received.size, state.deadline)
        with self._lock:
            state.counted_images = 1
            self._active.add(state)
            device_error = self._device_error
        if device_error:
            self._abandon(state, device_error)

    def _task(
        self,
        stage: Callable[Concatenate[RequestState, Arguments], None],
        state: RequestState,
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Task:
        """A task of the pool; if the stage raises an error, it becomes the response."""

        def task() -> None:
            with request_context(state.received.request_id):
                try:
                    error = guarded(lambda: stage(state, *args, **kwargs))
                except DeviceLostError as lost:  # nvJPEG uses the device too
                    logger.critical("the device is lost", exc_info=True)
                    self.on_device_lost(lost)
                    return
                if error is not None:
                    self._finish(state, error)

        return task

    def _parse(self, state: RequestState, turn: int) -> None:
        """Parse a request, and schedule the decoding of its images."""
        self._clock.advance(turn)
        waited_s = time.monotonic() - state.arrived
        with state.decode_time():
            state.require_client()
            parsed = self.stages.parse(state.request)
            state.start(parsed)
            self._count(state, len(parsed.items) - 1)
        for item, own_turn in enumerate(self._clock.turns(len(parsed.items))):
            task = self._task(self._decode, state, item, own_turn, waited_s)
            self._pool.decode(task, own_turn)

    def _decode(self, state: RequestState, item: int, turn: int, waited_s: float) -> None:
        """Decode an item; a single image is preprocessed at once, several each in its turn."""
        self._clock.advance(turn)
        if state.is_finished:
            return
        waited_s += time.monotonic() - state.parsed_at
        with state.decode_time():
            state.require_client()
            images = guarded(lambda: self.stages.decode(state, item))
        if isinstance(images, RequestError):
            self._fail_item(state, item, images)
            return
        state.add_images(item, images)
        if len(images) > 1:
            self._count(state, len(images) - 1)
            self.stages.choose_again(state)
        for image, own_turn in zip(images, self._clock.turns(len(images)), strict=True):
            image.waited_s = waited_s
            if len(images) == 1:
                self._preprocess(state, image, turn)
            else:
                self._pool.decode(self._task(self._preprocess, state, image, own_turn), own_turn)

    def _count(self, state: RequestState, more: int) -> None:
        """Count more images of a request, unless it is finished and forgotten."""
        with self._lock:
            if not state.is_finished:
                self._admission.add(more)
                state.counted_images += more

    def _fail_item(self, state: RequestState, item: int, error: RequestError) -> None:
        """Put an error in the item's place, or fail the request if it exceeds its limits."""
        assert state.parsed is not None
        if state.parsed.budget.error is not None:
            raise state.parsed.budget.error
        state.add_images(item, [failed := ImageState()])
        self._complete(state, failed, error)

    def _preprocess(self, state: RequestState, image: ImageState, turn: int) -> None:
        """Convert an image to the network's input, and let it wait for the network."""
        if state.is_finished:
            return
        with state.decode_time():
            preprocessed = guarded(lambda: self.stages.preprocess(state, image))
        if isinstance(preprocessed, RequestError):
            self._complete(state, image, preprocessed)
            return
        image.ready_at = time.monotonic()
        key = self.detector.batch_key(preprocessed)
        pixels = self.detector.padded_pixels(preprocessed)
        self._batcher.put(Slot(state, image, preprocessed), turn, key, pixels)

    def _encode(self, state: RequestState) -> None:
        """Encode the results of all images, and finish the request."""
        state.require_client()
        with state.encode_time():
            response = self.stages.encode(state)
        self._finish(state, response)

    # BatchListener: called in the inference thread.

    def is_awaited(self, request: RequestState) -> bool:
        """True if the request still needs its images' results; otherwise it is finished."""
        if request.is_finished:
            return False
        with request_context(request.received.request_id):
            error = guarded(request.require_client)
            if error is not None:
                self._finish(request, error)
        return error is None

    def on_taken(self) -> None:
        """Decode more images, because fewer wait now."""
        self._pool.wake()

    def on_results(
        self, batch: Sequence[Slot], results: Sequence[InferenceResult], elapsed_s: float
    ) -> None:
        """Record the results of a batch."""
        self._admission.record_batch(len(batch), elapsed_s)
        self.reporter.report_forward_passes(
            self.detector.forward_passes.take(), lambda: self.queued
        )
        for slot, result in zip(batch, results, strict=True):
            slot.request.add_forward(slot.image, result)
            self._complete(slot.request, slot.image, detections_or_error(result))

    def on_device_lost(self, error: DeviceLostError) -> None:
        """Give up all requests."""
        with self._lock:
            self._device_error = error
            active = list(self._active)
        for state in active:
            self._abandon(state, error)

    def _complete(
        self, state: RequestState, image: ImageState, result: Detections | RequestError
    ) -> None:
        if state.complete(image, result) and not state.is_finished:
            self._pool.encode(self._task(self._encode, state))

    def _finish(self, state: RequestState, outcome: HttpResponse | RequestError) -> None:
        """Send the response, once for each request."""
        if not state.finish():
            return
        error = outcome if isinstance(outcome, RequestError) else None
        response = (
            error_response(outcome, is_open_inference=state.request.is_open_inference)
            if isinstance(outcome, RequestError)
            else outcome
        )
        timing = {"Server-Timing": state.times.server_timing()}
        response = replace(response, headers={**response.headers, **timing})
        self._forget(state)
        defaults = self.stages.option_reader.defaults
        self.reporter.report_request(state, response, error, defaults, lambda: self.queued)
        state.future.set_result(response)

    def _abandon(self, state: RequestState, error: DeviceLostError) -> None:
        if state.finish():
            self._forget(state)
            state.future.set_exception(error)

    def _forget(self, state: RequestState) -> None:
        with self._lock:
            self._active.discard(state)
            counted = state.counted_images
        if counted:
            self._admission.release(counted, state.received.size)
