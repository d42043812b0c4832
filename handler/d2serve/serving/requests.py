"""A request in each stage of the pipeline, and its response."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from d2serve.detections import Detections, RGBImage
from d2serve.detector.base import PreprocessedImage
from d2serve.errors import RequestError
from d2serve.messages import ResponseEnvelope
from d2serve.outputs.accept import Choice
from d2serve.serving.telemetry import Received, RequestReport, StageTimes


@dataclass(frozen=True)
class DecodedRequest:
    """The images of a request and the layout of its response.

    Attributes:
        received: the request's metadata.
        images: UInt8[H, W, 3] RGB each, or the error in its place.
        value_ranges: the value range of each array in the request.
        choice: the media type and options of the response.
        envelope: the layout of the response around the images' results.
        times: of the stages so far.
    """

    received: Received
    images: tuple[RGBImage | RequestError, ...]
    value_ranges: tuple[str, ...]
    choice: Choice
    envelope: ResponseEnvelope
    times: StageTimes


@dataclass(frozen=True)
class PreprocessedRequest:
    """A decoded request and its images as they enter the network, or the errors in their place."""

    decoded: DecodedRequest
    images: tuple[PreprocessedImage | RequestError, ...]


@dataclass(frozen=True)
class DetectedRequest:
    """A decoded request and the detections of its images, or the errors in their place."""

    decoded: DecodedRequest
    detections: tuple[Detections | RequestError, ...]
    times: StageTimes


@dataclass(frozen=True)
class FailedRequest:
    """A request whose response is an error."""

    received: Received
    error: RequestError
    times: StageTimes


ReadyRequest: TypeAlias = PreprocessedRequest | FailedRequest
FinishedRequest: TypeAlias = DetectedRequest | FailedRequest


@dataclass(frozen=True)
class HttpResponse:
    """An HTTP response.

    Attributes:
        status: the HTTP status.
        content_type: the value of Content-Type.
        body: the body.
        headers: all other headers.
        report: the request's report for metrics and logs; None if it could not be made.
    """

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    report: RequestReport | None = None
