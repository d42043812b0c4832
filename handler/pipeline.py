"""The walk of one batch: [HttpRequest] -> [HttpResponse], no server in sight.

Three stages, each over all requests of the batch: `decode`, `detect`, `encode`. A request that
cannot be served carries its RequestError along in its slot; the other slots never notice.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from handler.detections import Detections
from handler.detector.interface import Detector, Outcome
from handler.errors import RequestError, internal, not_acceptable
from handler.inputs.decode import decode_request
from handler.messages import HttpRequest, HttpResponse
from handler.outputs.accept import JSON, choose_media_type
from handler.outputs.json_body import json_body
from handler.outputs.overlay import overlay_body
from handler.pictures import Picture
from handler.settings import Settings
from handler.telemetry import StageTimes, Stopwatch

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class DecodedRequest:
    """A request's pictures, UInt8[H, W, 3] RGB each, and the type of answer that it wants."""

    pictures: tuple[Picture | RequestError, ...]
    media_type: str
    times: StageTimes


@dataclass(frozen=True)
class DetectedRequest:
    """A decoded request and what was found in each of its pictures."""

    decoded: DecodedRequest
    found: tuple[Detections | RequestError, ...]
    times: StageTimes


@dataclass(frozen=True)
class FailedRequest:
    """A request that gets an error."""

    error: RequestError
    times: StageTimes


class Pipeline:
    """Serves whole batches of requests with one detector."""

    def __init__(self, detector: Detector, class_names: Sequence[str], settings: Settings) -> None:
        self.detector = detector
        self.class_names = tuple(class_names)
        self.settings = settings

    def run(self, requests: Sequence[HttpRequest]) -> list[HttpResponse]:
        """All three stages; as many responses as requests, in order."""
        return self.encode(self.detect(self.decode(requests)))

    def decode(self, requests: Sequence[HttpRequest]) -> list[DecodedRequest | FailedRequest]:
        """Bytes and headers -> pictures and wishes."""
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

        def read() -> tuple[str, list[Picture | RequestError]]:
            media_type = choose_media_type(request.headers.get("accept"))
            return media_type, decode_request(request, self.settings)

        result = _guarded(read)
        times = StageTimes(decode_ms=watch.elapsed_ms())
        if isinstance(result, RequestError):
            return FailedRequest(result, times)
        media_type, pictures = result
        return DecodedRequest(tuple(pictures), media_type, times)

    def _outcomes(self, pictures: Sequence[Picture]) -> list[Outcome]:
        found = _guarded(lambda: self.detector.detect(pictures)) if pictures else []
        if isinstance(found, RequestError):
            return [Outcome(detections=None, forward_ms=0.0, batch=0)] * len(pictures)
        return found

    def _encode(self, slot: DetectedRequest | FailedRequest) -> HttpResponse:
        if isinstance(slot, FailedRequest):
            return _error_response(slot)
        watch = Stopwatch()
        body = _guarded(lambda: self._body(slot))
        times = replace(slot.times, encode_ms=watch.elapsed_ms())
        if isinstance(body, RequestError):
            return _error_response(FailedRequest(body, times))
        return HttpResponse(200, slot.decoded.media_type, body, _headers(times))

    def _body(self, slot: DetectedRequest) -> bytes:
        if len(slot.found) == 1 and isinstance(slot.found[0], RequestError):
            raise slot.found[0]
        if slot.decoded.media_type == JSON:
            return json_body(slot.found, self.class_names)
        if len(slot.found) != 1:
            raise not_acceptable(
                f"{len(slot.found)} pictures were sent; a drawn picture answers only one",
                "accept application/json, or send one picture at a time",
            )
        (picture,), (detections,) = slot.decoded.pictures, slot.found
        assert not isinstance(picture, RequestError)
        assert not isinstance(detections, RequestError)
        return overlay_body(picture, detections, self.class_names, slot.decoded.media_type)


def _with_outcomes(decoded: DecodedRequest, outcomes: Iterator[Outcome]) -> DetectedRequest:
    """Takes this request's share of the outcomes, which come in the order of its good pictures."""
    found: list[Detections | RequestError] = []
    times = decoded.times
    for picture in decoded.pictures:
        if isinstance(picture, RequestError):
            found.append(picture)
            continue
        outcome = next(outcomes)
        found.append(internal() if outcome.detections is None else outcome.detections)
        times = replace(
            times,
            forward_ms=max(times.forward_ms, outcome.forward_ms),
            batch=max(times.batch, outcome.batch),
        )
    return DetectedRequest(decoded, tuple(found), times)


def _guarded(stage: Callable[[], Result]) -> Result | RequestError:
    """A stage's result, or as an error what it raises, which then stays in its slots."""
    try:
        return stage()
    except RequestError as error:
        return error
    except Exception:  # a fault of ours must not fail the neighbours in the batch
        logger.exception("a stage failed")
        return internal()


def _error_response(slot: FailedRequest) -> HttpResponse:
    body = json.dumps(slot.error.body()).encode("ascii")
    return HttpResponse(slot.error.status, JSON, body, _headers(slot.times))


def _headers(times: StageTimes) -> dict[str, str]:
    return {"Server-Timing": times.server_timing()}
