"""What the stages of the pipeline hand on, one slot for each request of a batch."""

from dataclasses import dataclass

from handler.detections import Detections
from handler.detector.interface import Prepared
from handler.errors import RequestError
from handler.outputs.accept import Choice
from handler.pictures import Picture
from handler.telemetry import StageTimes
from handler.wrapping import Wrapping


@dataclass(frozen=True)
class DecodedRequest:
    """A request's pictures, UInt8[H, W, 3] RGB each, and how its answer is to look.

    `value_ranges` are those of the arrays among what was sent.
    """

    request_id: str
    pictures: tuple[Picture | RequestError, ...]
    value_ranges: tuple[str, ...]
    choice: Choice
    wrapping: Wrapping
    times: StageTimes


@dataclass(frozen=True)
class PreparedRequest:
    """A decoded request and each of its pictures as it enters the network, or why it cannot."""

    decoded: DecodedRequest
    prepared: tuple[Prepared | RequestError, ...]


@dataclass(frozen=True)
class DetectedRequest:
    """A decoded request and what was found in each of its pictures."""

    decoded: DecodedRequest
    found: tuple[Detections | RequestError, ...]
    times: StageTimes


@dataclass(frozen=True)
class FailedRequest:
    """A request that gets an error."""

    request_id: str
    error: RequestError
    times: StageTimes
