"""The state of a request between its submission and its response."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock

from d2serve.detections import Detections, RGBImage
from d2serve.detector.base import Failure, InferenceResult, PreprocessedImage, Size, Stopwatch
from d2serve.errors import RequestError, client_closed, internal, out_of_memory, overloaded
from d2serve.inputs.budget import RequestBudget
from d2serve.inputs.json_values import Item
from d2serve.messages import HttpRequest, Options, ResponseEnvelope, Style
from d2serve.outputs.accept import Choice
from d2serve.serving.requests import HttpResponse
from d2serve.serving.telemetry import Received, StageTimes


@dataclass(frozen=True)
class ParsedRequest:
    """The content of a request before its images are decoded.

    Attributes:
        items: each may contain several images.
        options: without those of the Accept header.
        choice: the media type and options of the response.
        envelope: the layout of the response around the images' results.
        budget: limits on the images of the request.
        keeps_pixels: whether the response contains the images themselves.
    """

    items: Sequence[Item]
    options: Options
    choice: Choice
    envelope: ResponseEnvelope
    budget: RequestBudget
    keeps_pixels: bool


@dataclass
class ImageState:
    """One image of a request.

    Attributes:
        size_hw: height and width in pixels; zeros for an image that cannot be decoded.
        pixels: UInt8[H, W, 3] RGB, until it is preprocessed, or as long as the response needs it.
        result: the detections, or the error that replaces them; None before that.
        waited_s: how long it has waited for its stages so far, in seconds.
        ready_at: when it was preprocessed, in seconds of `time.monotonic`.
    """

    size_hw: Size = (0, 0)
    pixels: RGBImage | None = None
    result: Detections | RequestError | None = None
    waited_s: float = 0.0
    ready_at: float = 0.0


@dataclass(frozen=True)
class Slot:
    """A preprocessed image that waits for the network, and its place in its request."""

    request: "RequestState"
    image: ImageState
    preprocessed: PreprocessedImage


class RequestState:
    """A request between its submission and its response; may be used from any thread.

    Args:
        request: the request.
        received: its metadata for reports.

    Attributes:
        future: receives the response.
        arrived: arrival time in seconds of `time.monotonic`.
        deadline: when the client stops waiting, in seconds of `time.monotonic`.
        parsed: its content, without the items; None before parsing.
        parsed_at: when its images began to wait for decoding, in seconds of `time.monotonic`.
        value_ranges: of each item that is an array, by the item's position.
        times: of the stages so far.
        counted_images: number of images that it counts for in `Admission`.
        is_finished: whether the response is known, so that the rest of the work is unnecessary.
    """

    def __init__(self, request: HttpRequest, received: Received) -> None:
        self.request = request
        self.received = received
        self.future: Future[HttpResponse] = Future()
        self.future.set_running_or_notify_cancel()  # so that nothing can cancel it
        self.arrived = time.monotonic() if request.arrived is None else request.arrived
        self.deadline = request.deadline
        self.parsed: ParsedRequest | None = None
        self.parsed_at = 0.0
        self.value_ranges: dict[int, str] = {}
        self.times = StageTimes()
        self.counted_images = 0
        self.is_finished = False
        self._items: dict[int, Item] = {}
        self._images: list[list[ImageState]] = []
        self._pending = 0
        self._lock = Lock()

    @property
    def images(self) -> list[ImageState]:
        """The images of all items, as far as they have been decoded, in order."""
        return [image for images in self._images for image in images]

    def limit_wait(self, seconds: float) -> None:
        """Move the deadline to at most this time after the arrival."""
        self.deadline = min(self.deadline, self.arrived + seconds)

    def require_client(self) -> None:
        """Check that the client still waits for the response.

        Raises:
            RequestError: 499 the client has disconnected, 503 the deadline is over.
        """
        if self.request.is_disconnected():
            raise client_closed()
        if time.monotonic() > self.deadline:
            waited_s = self.deadline - self.arrived
            raise overloaded(f"the request has waited longer than {waited_s:g} s")

    def start(self, parsed: ParsedRequest) -> None:
        """Record the content; each of its items is pending."""
        # The body is not needed any more, only its items.
        self.request = replace(self.request, parts=())
        self.parsed = replace(parsed, items=())
        self.parsed_at = time.monotonic()
        self._items = dict(enumerate(parsed.items))
        self._images = [[] for _ in parsed.items]
        self._pending = len(parsed.items)

    def take_item(self, item: int) -> Item:
        """Return an item once; its memory is free again when it has been decoded."""
        return self._items.pop(item)

    def add_images(self, item: int, images: list[ImageState]) -> None:
        """Record the images of a decoded item; they are pending in its place."""
        with self._lock:
            self._images[item] = images
            self._pending += len(images) - 1

    def mark_as_batch(self) -> None:
        """Record that the only item is an array with a leading N."""
        parsed = self.parsed
        assert parsed is not None
        if len(self._images) == 1 and parsed.envelope.style is Style.PLAIN:
            envelope = replace(parsed.envelope, style=Style.BATCH)
            self.parsed = replace(parsed, envelope=envelope)

    def complete(self, image: ImageState, result: Detections | RequestError) -> bool:
        """Record the result of an image; True if no other is pending."""
        with self._lock:
            image.result = result
            self._pending -= 1
            return self._pending == 0

    @contextmanager
    def decode_time(self) -> Iterator[None]:
        """Add the time of the `with` block to that of decoding."""
        watch = Stopwatch()
        try:
            yield
        finally:
            with self._lock:
                total_ms = self.times.decode_ms + watch.elapsed_ms()
                self.times = replace(self.times, decode_ms=total_ms)

    @contextmanager
    def encode_time(self) -> Iterator[None]:
        """Record the time of the `with` block as that of encoding."""
        watch = Stopwatch()
        try:
            yield
        finally:
            self.times = replace(self.times, encode_ms=watch.elapsed_ms())

    def add_forward(self, image: ImageState, result: InferenceResult) -> None:
        """Add the forward pass of an image, and the time that it has waited."""
        with self._lock:
            self.times = replace(
                self.times,
                queue_ms=max(self.times.queue_ms, image.waited_s * 1000.0),
                forward_ms=max(self.times.forward_ms, result.forward_ms),
                batch=max(self.times.batch, result.batch),
            )

    def finish(self) -> bool:
        """Mark the request as finished; False if it is finished already."""
        with self._lock:
            was_finished, self.is_finished = self.is_finished, True
        return not was_finished


def detections_or_error(result: InferenceResult) -> Detections | RequestError:
    """The detections of an image, or the error response for its failure."""
    if result.output is Failure.OUT_OF_MEMORY:
        return out_of_memory()
    return internal() if isinstance(result.output, Failure) else result.output
