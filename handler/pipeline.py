"""The walk of one batch: [HttpRequest] -> [HttpResponse], no server in sight.

Three stages, each over all requests of the batch: `decode`, `detect`, `encode`. A request that
cannot be served carries its RequestError along in its slot; the other slots never notice.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from handler.detections import Detections
from handler.detector.interface import Detector, Failure, Outcome
from handler.errors import RequestError, internal, out_of_memory
from handler.inputs.body import read_body
from handler.inputs.decode import decode_items
from handler.inputs.options import OptionReader, read_custom_attributes
from handler.messages import HttpRequest, HttpResponse
from handler.model_facts import ModelFacts
from handler.outputs.accept import JSON, choose_response
from handler.outputs.render import Answer, render
from handler.pictures import Picture
from handler.reporting import received, request_report
from handler.settings import Settings
from handler.slots import DecodedRequest, DetectedRequest, FailedRequest
from handler.telemetry import StageTimes, Stopwatch
from handler.wrapping import Style

logger = logging.getLogger(__name__)

CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
Result = TypeVar("Result")


class Pipeline:
    """Serves whole batches of requests with one detector.

    Raises:
        SettingsError: a default option in the settings is not valid for the model.
    """

    def __init__(self, detector: Detector, model: ModelFacts, settings: Settings) -> None:
        self.detector = detector
        self.model = model
        self.settings = settings
        self.option_reader = OptionReader(model, settings.options)

    def run(self, requests: Sequence[HttpRequest]) -> list[HttpResponse]:
        """All three stages; as many responses as requests, in order."""
        return self.encode(self.detect(self.decode(requests)))

    def decode(self, requests: Sequence[HttpRequest]) -> list[DecodedRequest | FailedRequest]:
        """Bytes and headers -> pictures and options."""
        return [self._decode(request) for request in requests]

    def detect(
        self, slots: Sequence[DecodedRequest | FailedRequest]
    ) -> list[DetectedRequest | FailedRequest]:
        """One walk through the detector for the good pictures of all requests together."""
        pictures = [
            picture
            for slot in slots
            if isinstance(slot, DecodedRequest)
            for picture in slot.pictures
            if not isinstance(picture, RequestError)
        ]
        outcomes = iter(self._outcomes(pictures))
        return [
            slot if isinstance(slot, FailedRequest) else _with_outcomes(slot, outcomes)
            for slot in slots
        ]

    def encode(self, slots: Sequence[DetectedRequest | FailedRequest]) -> list[HttpResponse]:
        """Detections and errors -> status, headers and bytes."""
        return [self._encode(slot) for slot in slots]

    def _decode(self, request: HttpRequest) -> DecodedRequest | FailedRequest:
        watch = Stopwatch()
        decoded = _guarded(lambda: self._read(request))
        times = StageTimes(decode_ms=watch.elapsed_ms())
        if isinstance(decoded, RequestError):
            return FailedRequest(received(request), decoded, times)
        return replace(decoded, times=times)

    def _read(self, request: HttpRequest) -> DecodedRequest:
        envelope = read_body(request, self.settings)
        attributes = read_custom_attributes(request.headers.get(CUSTOM_ATTRIBUTES, ""))
        options = self.option_reader.read(request.query, attributes, envelope.parameters)
        decoded = decode_items(envelope.items, options, self.settings)
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

    def _outcomes(self, pictures: Sequence[Picture]) -> list[Outcome]:
        found = _guarded(lambda: self.detector.detect(pictures)) if pictures else []
        if isinstance(found, RequestError):
            return [Outcome(Failure.FAULT, forward_ms=0.0, batch=0)] * len(pictures)
        return found

    def _encode(self, slot: DetectedRequest | FailedRequest) -> HttpResponse:
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

    def _refusal(self, slot: DetectedRequest | FailedRequest, error: RequestError) -> HttpResponse:
        body = json.dumps(error.body()).encode("ascii")
        response = HttpResponse(error.status, JSON, body, _headers(slot.times, ()))
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


def _with_outcomes(decoded: DecodedRequest, outcomes: Iterator[Outcome]) -> DetectedRequest:
    """Takes this request's share of the outcomes, which come in the order of its good pictures."""
    found: list[Detections | RequestError] = []
    times = decoded.times
    for picture in decoded.pictures:
        if isinstance(picture, RequestError):
            found.append(picture)
            continue
        outcome = next(outcomes)
        found.append(_found(outcome))
        times = replace(
            times,
            forward_ms=max(times.forward_ms, outcome.forward_ms),
            batch=max(times.batch, outcome.batch),
        )
    return DetectedRequest(decoded, tuple(found), times)


def _found(outcome: Outcome) -> Detections | RequestError:
    if outcome.found is Failure.OUT_OF_MEMORY:
        return out_of_memory()
    return internal() if isinstance(outcome.found, Failure) else outcome.found


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
