"""Collect the detector's results of the requests of a batch."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from d2serve.detections import Detections, Picture
from d2serve.detector.base import Failure, Outcome, Prepared
from d2serve.errors import RequestError, internal, out_of_memory
from d2serve.messages import Wrapping
from d2serve.outputs.accept import Choice
from d2serve.serving.telemetry import Received, StageTimes


@dataclass(frozen=True)
class DecodedRequest:
    """A request's pictures, UInt8[H, W, 3] RGB each, and how its answer is to look.

    `value_ranges` are those of the arrays among what was sent.
    """

    received: Received
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

    received: Received
    error: RequestError
    times: StageTimes


FAULT = Outcome(Failure.FAULT, forward_ms=0.0, batch=0)


@dataclass(frozen=True)
class _Open:
    """A request, and by its place the outcome of each of its good pictures that has one."""

    request: PreparedRequest
    places: tuple[int, ...]
    outcomes: dict[int, Outcome] = field(default_factory=dict)


class Gathering:
    """Hands out the good pictures of a batch one by one, and takes their outcomes in any order.

    Args:
        slots: the requests of the batch, each taken when its pictures are asked for.
    """

    def __init__(self, slots: Iterable[PreparedRequest | FailedRequest]) -> None:
        self._slots = enumerate(slots)
        self._owners: list[tuple[int, int]] = []
        self._open: dict[int, _Open] = {}
        self._complete: deque[tuple[int, DetectedRequest | FailedRequest]] = deque()

    def pictures(self) -> Iterator[Prepared]:
        """Those of all requests, in order."""
        for index, slot in self._slots:
            if isinstance(slot, FailedRequest):
                self._complete.append((index, slot))
                continue
            good = {
                place: picture
                for place, picture in enumerate(slot.prepared)
                if isinstance(picture, Prepared)
            }
            self._open[index] = _Open(slot, tuple(good))
            self._close_if_done(index)
            for place, picture in good.items():
                self._owners.append((index, place))
                yield picture

    def put(self, position: int, outcome: Outcome) -> None:
        """Takes the outcome of the picture that was handed out at that position."""
        index, place = self._owners[position]
        self._open[index].outcomes[place] = outcome
        self._close_if_done(index)

    def abandon(self) -> None:
        """Makes a fault of every outcome that is missing, of pictures not handed out yet too."""
        for _ in self.pictures():
            continue
        for waiting in self._open.values():
            waiting.outcomes.update(
                (place, FAULT) for place in waiting.places if place not in waiting.outcomes
            )
        for index in list(self._open):
            self._close_if_done(index)

    def completed(self) -> Iterator[tuple[int, DetectedRequest | FailedRequest]]:
        """Position and slot of each request that has become complete since the last call."""
        while self._complete:
            yield self._complete.popleft()

    def _close_if_done(self, index: int) -> None:
        if len(self._open[index].outcomes) == len(self._open[index].places):
            self._complete.append((index, _detected(self._open.pop(index))))


def _detected(done: _Open) -> DetectedRequest:
    decoded, outcomes = done.request.decoded, done.outcomes
    found = (
        picture if isinstance(picture, RequestError) else _found(outcomes[place])
        for place, picture in enumerate(done.request.prepared)
    )
    times = replace(
        decoded.times,
        forward_ms=max((outcome.forward_ms for outcome in outcomes.values()), default=0.0),
        batch=max((outcome.batch for outcome in outcomes.values()), default=0),
    )
    return DetectedRequest(decoded, tuple(found), times)


def _found(outcome: Outcome) -> Detections | RequestError:
    if outcome.found is Failure.OUT_OF_MEMORY:
        return out_of_memory()
    return internal() if isinstance(outcome.found, Failure) else outcome.found
