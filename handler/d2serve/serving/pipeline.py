"""Process batches of HTTP requests: decode, run the network, encode."""

import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import TypeVar

from d2serve.detections import RGBImage
from d2serve.detector.base import Detector, PreprocessedImage, Stopwatch
from d2serve.errors import RequestError, bad_request, internal, overloaded
from d2serve.inputs.body import decode_items, read_body
from d2serve.inputs.images import JpegDecoder, decode_on_cpu
from d2serve.inputs.options import OptionReader, read_custom_attributes
from d2serve.messages import ARRIVAL_HEADER, HttpRequest, Style
from d2serve.metadata import ModelMetadata
from d2serve.outputs.accept import JSON, choose_response
from d2serve.outputs.response import ResponseContent, render
from d2serve.serving.process import Inline
from d2serve.serving.request_log import received, request_report
from d2serve.serving.requests import (
    DecodedRequest,
    DetectedRequest,
    FailedRequest,
    FinishedRequest,
    HttpResponse,
    PreprocessedRequest,
    ReadyRequest,
)
from d2serve.serving.result_collector import ResultCollector
from d2serve.serving.telemetry import StageTimes
from d2serve.settings import Settings

logger = logging.getLogger(__name__)
CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
# A client's own deadline.
TIMEOUT_HEADER = "x-d2serve-timeout-ms"
Result = TypeVar("Result")


class Pipeline:
    """Serves batches of requests with one detector.

    Decoding, the network and encoding overlap within a batch. An error stays with its image or
    request.

    Args:
        detector: runs in the thread that calls `run`.
        model: the model's metadata.
        settings: the operator's settings.
        executor: runs decoding and encoding; None for the thread that calls `run`.
        decode_jpeg: see `decode_image`.

    Raises:
        SettingsError: a default option in the settings is not valid for the model.
    """

    def __init__(
        self,
        detector: Detector,
        model: ModelMetadata,
        settings: Settings,
        executor: Executor | None = None,
        decode_jpeg: JpegDecoder = decode_on_cpu,
    ) -> None:
        self.detector = detector
        self.model = model
        self.settings = settings
        self.executor = executor or Inline()
        self.decode_jpeg = decode_jpeg
        self.option_reader = OptionReader(model, settings.options)

    def run(self, requests: Sequence[HttpRequest]) -> list[HttpResponse]:
        """Process a batch; one response for each request, in order."""
        # The stages of a single request do not overlap.
        executor = self.executor if len(requests) > 1 else Inline()
        decoding = deque(executor.submit(self.decode, request) for request in requests)
        encoding = {
            index: executor.submit(self.encode, request)
            for index, request in self._detect(_results(decoding))
        }
        return [encoding[index].result() for index in range(len(requests))]

    def decode(self, request: HttpRequest) -> ReadyRequest:
        """Decode and preprocess the images, and read the options."""
        watch = Stopwatch()
        decoded = _guarded(lambda: self._decode(request))
        if isinstance(decoded, RequestError):
            return FailedRequest(received(request), decoded, StageTimes(watch.elapsed_ms()))
        images = tuple(map(self._preprocess, decoded.images))
        return PreprocessedRequest(replace(decoded, times=StageTimes(watch.elapsed_ms())), images)

    def encode(self, request: FinishedRequest) -> HttpResponse:
        """Encode the detections or the error."""
        if isinstance(request, FailedRequest):
            return self._error_response(request, request.error)
        watch = Stopwatch()
        body = _guarded(lambda: self._render(request))
        encoded = replace(request, times=replace(request.times, encode_ms=watch.elapsed_ms()))
        if isinstance(body, RequestError):
            return self._error_response(encoded, body)
        headers = _headers(encoded.times, request.decoded.value_ranges)
        response = HttpResponse(200, request.decoded.choice.media_type, body, headers)
        return self._with_report(response, encoded)

    def _decode(self, request: HttpRequest) -> DecodedRequest:
        if request.disconnected:
            raise overloaded("the client has disconnected")
        check_deadline(request.headers, self.settings.longest_wait_seconds)
        parsed = read_body(request, self.settings)
        attributes = read_custom_attributes(request.headers.get(CUSTOM_ATTRIBUTES, ""))
        options = self.option_reader.read(request.query, attributes, parsed.parameters)
        decoded = decode_items(parsed.items, options, self.settings, self.decode_jpeg)
        envelope = parsed.envelope
        if decoded.is_batch and envelope.style is Style.PLAIN:
            envelope = replace(envelope, style=Style.BATCH)
        return DecodedRequest(
            received(request),
            decoded.images,
            decoded.value_ranges,
            choose_response(request.headers.get("accept"), options, len(decoded.images)),
            envelope,
            StageTimes(decode_ms=0.0),
        )

    def _preprocess(self, image: RGBImage | RequestError) -> PreprocessedImage | RequestError:
        if isinstance(image, RequestError):
            return image
        return _guarded(lambda: self.detector.preprocess(image))

    def _detect(self, requests: Iterable[ReadyRequest]) -> Iterator[tuple[int, FinishedRequest]]:
        """Run the images of all requests; yield each request as soon as it is finished."""
        collector = ResultCollector(requests)
        try:
            for number, result in self.detector.stream(collector.images()):
                collector.complete(number, result)
                yield from collector.finished()
        except Exception:  # the results so far remain valid
            logger.exception("the detector failed")
        collector.fail_pending()
        yield from collector.finished()

    def _render(self, request: DetectedRequest) -> bytes:
        decoded = request.decoded
        content = ResponseContent(
            images=decoded.images,
            detections=request.detections,
            options=decoded.choice.options,
            media_type=decoded.choice.media_type,
            envelope=decoded.envelope,
        )
        return render(content, self.model, self.settings.max_response_bytes)

    def _error_response(self, request: FinishedRequest, error: RequestError) -> HttpResponse:
        body = json.dumps(error.body()).encode("ascii")
        headers = _headers(request.times, ()) | error.headers()
        response = HttpResponse(error.status, JSON, body, headers)
        return self._with_report(response, request, error)

    def _with_report(
        self, response: HttpResponse, request: FinishedRequest, error: RequestError | None = None
    ) -> HttpResponse:
        defaults = self.option_reader.defaults
        report = _guarded(lambda: request_report(request, response, error, defaults))
        # A response is valid without a report.
        return response if isinstance(report, RequestError) else replace(response, report=report)


def check_deadline(
    headers: Mapping[str, str],
    longest_wait_s: float,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Reject a request that has waited longer than its client waits.

    The arrival time is known only behind the reverse proxy; elsewhere no request is rejected.

    Args:
        headers: with lower-case names.
        longest_wait_s: maximum time in seconds that clients wait; 0 for any time. A client may
            send a shorter one.
        now: the clock of the arrival times, in seconds.

    Raises:
        RequestError: 503 the request has waited too long, 400 the client's time is not valid.
    """
    limits = [longest_wait_s] if longest_wait_s else []
    if TIMEOUT_HEADER in headers:
        limits.append(_milliseconds(headers[TIMEOUT_HEADER]) / 1000)
    arrived = _number(headers.get(ARRIVAL_HEADER, ""))
    if limits and not math.isnan(arrived) and now() - arrived > min(limits):
        raise overloaded(f"the request has waited longer than {min(limits):g} s")


def _milliseconds(text: str) -> float:
    value = _number(text)
    if not 0 < value < math.inf:
        raise bad_request(
            f"{TIMEOUT_HEADER} is not a positive number",
            f"send milliseconds, as in {TIMEOUT_HEADER}: 2000",
        )
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _results(futures: "deque[Future[Result]]") -> Iterator[Result]:
    """Yield results in order; each future is dropped, so that its images can be freed."""
    while futures:
        yield futures.popleft().result()


def _guarded(stage: Callable[[], Result]) -> Result | RequestError:
    """The result of a stage, or the error that it raises, which affects no other request."""
    try:
        return stage()
    except RequestError as error:
        return error
    except Exception:  # an internal error must not fail the other requests of the batch
        logger.exception("a stage of the pipeline failed")
        return internal()


def _headers(times: StageTimes, value_ranges: Sequence[str]) -> dict[str, str]:
    headers = {"Server-Timing": times.server_timing()}
    if value_ranges:
        headers["X-Input-Range"] = ", ".join(value_ranges)
    return headers
