"""Process one batch of HTTP requests into HTTP responses."""

import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import TypeVar

from d2serve.detections import Picture
from d2serve.detector.base import Detector, Prepared
from d2serve.errors import RequestError, internal, overloaded
from d2serve.inputs.body import decode_items, read_body
from d2serve.inputs.images import JpegDecoder, decode_on_cpu
from d2serve.inputs.options import OptionReader, read_custom_attributes
from d2serve.messages import HttpRequest, Style
from d2serve.metadata import ModelFacts
from d2serve.outputs.accept import JSON, choose_response
from d2serve.outputs.response import Answer, render
from d2serve.serving.deadline import check_patience
from d2serve.serving.process import Inline
from d2serve.serving.request_log import received, request_report
from d2serve.serving.result_collector import (
    DecodedRequest,
    DetectedRequest,
    FailedRequest,
    Gathering,
    PreparedRequest,
)
from d2serve.serving.telemetry import HttpResponse, StageTimes, Stopwatch
from d2serve.settings import Settings

logger = logging.getLogger(__name__)
CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
Result = TypeVar("Result")


class Pipeline:
    """Serves whole batches of requests with one detector.

    Args:
        detector: runs in the thread that calls `run`.
        model: what clients may know of it.
        settings: what the operator chose.
        executor: where requests are decoded and encoded.
        decode_jpeg: for JPEGs of the usual kinds.

    Raises:
        SettingsError: a default option in the settings is not valid for the model.
    """

    def __init__(
        self,
        detector: Detector,
        model: ModelFacts,
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
        """As many responses as requests, in order."""
        # Nothing of a request alone overlaps.
        executor = self.executor if len(requests) > 1 else Inline()
        decoding = deque(executor.submit(self.decode, request) for request in requests)
        encoding = {
            index: executor.submit(self.encode, slot)
            for index, slot in self._detect(_results(decoding))
        }
        return [encoding[index].result() for index in range(len(requests))]

    def decode(self, request: HttpRequest) -> PreparedRequest | FailedRequest:
        """Bytes and headers -> options, and pictures as the detector wants them."""
        watch = Stopwatch()
        read = _guarded(lambda: self._read(request))
        if isinstance(read, RequestError):
            return FailedRequest(received(request), read, StageTimes(watch.elapsed_ms()))
        prepared = tuple(map(self._prepare, read.pictures))
        return PreparedRequest(replace(read, times=StageTimes(watch.elapsed_ms())), prepared)

    def encode(self, slot: DetectedRequest | FailedRequest) -> HttpResponse:
        """Detections or an error -> status, headers and bytes."""
        if isinstance(slot, FailedRequest):
            return self._refusal(slot, slot.error)
        watch = Stopwatch()
        body = _guarded(lambda: self._body(slot))
        done = replace(slot, times=replace(slot.times, encode_ms=watch.elapsed_ms()))
        if isinstance(body, RequestError):
            return self._refusal(done, body)
        headers = _headers(done.times, done.decoded.value_ranges)
        return self._reported(
            HttpResponse(200, done.decoded.choice.media_type, body, headers), done
        )

    def _detect(
        self, slots: Iterable[PreparedRequest | FailedRequest]
    ) -> Iterator[tuple[int, DetectedRequest | FailedRequest]]:
        """One walk through the detector for the good pictures of all requests together; each
        request's position and slot, as soon as none of its pictures is missing."""
        gathering = Gathering(slots)
        try:
            for position, outcome in self.detector.stream(gathering.pictures()):
                gathering.put(position, outcome)
                yield from gathering.completed()
        except Exception:  # what is missing fails, what is there stays
            logger.exception("the detector failed")
        gathering.abandon()
        yield from gathering.completed()

    def _prepare(self, picture: Picture | RequestError) -> Prepared | RequestError:
        if isinstance(picture, RequestError):
            return picture
        return _guarded(lambda: self.detector.prepare(picture))

    def _read(self, request: HttpRequest) -> DecodedRequest:
        if request.abandoned:
            raise overloaded("the client has hung up")
        check_patience(request.headers, self.settings.longest_wait_seconds)
        envelope = read_body(request, self.settings)
        attributes = read_custom_attributes(request.headers.get(CUSTOM_ATTRIBUTES, ""))
        options = self.option_reader.read(request.query, attributes, envelope.parameters)
        decoded = decode_items(envelope.items, options, self.settings, self.decode_jpeg)
        wrapping = envelope.wrapping
        if decoded.is_batch and wrapping.style is Style.PLAIN:
            wrapping = replace(wrapping, style=Style.BATCH)
        return DecodedRequest(
            received(request),
            decoded.pictures,
            decoded.value_ranges,
            choose_response(request.headers.get("accept"), options, len(decoded.pictures)),
            wrapping,
            StageTimes(decode_ms=0.0),
        )

    def _refusal(self, slot: DetectedRequest | FailedRequest, error: RequestError) -> HttpResponse:
        body = json.dumps(error.body()).encode("ascii")
        headers = _headers(slot.times, ()) | error.headers()
        response = HttpResponse(error.status, JSON, body, headers)
        return self._reported(response, slot, error)

    def _reported(
        self,
        response: HttpResponse,
        slot: DetectedRequest | FailedRequest,
        error: RequestError | None = None,
    ) -> HttpResponse:
        defaults = self.option_reader.defaults
        report = _guarded(lambda: request_report(slot, response, error, defaults))
        # Without a report an answer is as good.
        return response if isinstance(report, RequestError) else replace(response, report=report)

    def _body(self, slot: DetectedRequest) -> bytes:
        decoded = slot.decoded
        answer = Answer(
            pictures=decoded.pictures,
            found=slot.found,
            options=decoded.choice.options,
            media_type=decoded.choice.media_type,
            wrapping=decoded.wrapping,
        )
        return render(answer, self.model, self.settings.max_response_bytes)


def _results(futures: "deque[Future[Result]]") -> Iterator[Result]:
    """In order, each forgotten when it is handed out, so that its pictures can go."""
    while futures:
        yield futures.popleft().result()


def _guarded(stage: Callable[[], Result]) -> Result | RequestError:
    """A stage's result, or as an error what it raises, which then stays in its slots."""
    try:
        return stage()
    except RequestError as error:
        return error
    except Exception:  # a fault of ours must not fail the neighbours in the batch
        logger.exception("a stage failed")
        return internal()


def _headers(times: StageTimes, value_ranges: Sequence[str]) -> dict[str, str]:
    headers = {"Server-Timing": times.server_timing()}
    if value_ranges:
        headers["X-Input-Range"] = ", ".join(value_ranges)
    return headers
