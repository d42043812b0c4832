"""Requests end early: rejected before any work, or no longer awaited by their clients."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from d2serve.detections import RGBImage
from d2serve.detector.base import InferenceResult, PreprocessedImage
from d2serve.messages import HttpRequest
from d2serve.serving import stages
from d2serve.serving.pipeline import Pipeline
from tests.bodies import image_bytes, noise
from tests.core.requests import (
    GOOD,
    first_pixels,
    image,
    json_request,
    pipeline,
    png_request,
    request_of,
    require_error,
)
from tests.core.stepping import TIMEOUT_S, Arrivals, SteppedDetector
from tests.fakes import FakeDetector

JPEG = image_bytes(noise(40, 60, 3), "JPEG")
REJECTED_EARLY: dict[str, tuple[HttpRequest, int, str]] = {
    "accept": (request_of(JPEG, headers={"accept": "text/html"}), 406, "not_acceptable"),
    "accept of several": (
        HttpRequest({"accept": "image/png"}, request_of(JPEG).parts * 2),
        406,
        "not_acceptable",
    ),
    "accept parameter": (
        request_of(JPEG, headers={"accept": "application/json;n_predictions=0"}),
        400,
        "bad_request",
    ),
    "unknown option": (request_of(JPEG, query={"size": "7"}), 400, "bad_request"),
    "option out of range": (request_of(JPEG, query={"max_detections": "0"}), 400, "bad_request"),
    "timeout": (request_of(JPEG, headers={"x-d2serve-timeout-ms": "soon"}), 400, "bad_request"),
    "encoding": (
        request_of(JPEG, headers={"content-encoding": "gzip"}),
        415,
        "unsupported_media_type",
    ),
    "number of files": (HttpRequest({}, request_of(JPEG).parts * 4), 413, "too_large"),
    "number of instances": (json_request({"instances": ["?"] * 4}), 413, "too_large"),
}


@pytest.mark.parametrize("name", REJECTED_EARLY)
def test_request_is_rejected_before_any_image_is_decoded(name: str) -> None:
    decoded: list[bytes] = []

    def decode(body: bytes) -> RGBImage:
        decoded.append(body)
        raise AssertionError("an image of a rejected request was decoded")

    request, status, code = REJECTED_EARLY[name]
    served = pipeline(decode_jpeg=decode, max_images_per_request=3)
    require_error(served.run([request])[0], status, code)
    assert decoded == []
    served.run([request_of(JPEG)])
    assert decoded == [JPEG]


class Client:
    """A client that leaves at one of the events, or whose deadline passes then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_left = False
        self.now = 1000.0
        monkeypatch.setattr("d2serve.serving.request_state.time.monotonic", lambda: self.now)

    def request(self, request: HttpRequest) -> HttpRequest:
        return replace(request, is_disconnected=lambda: self.has_left)

    def disconnect(self) -> None:
        self.has_left = True

    def expire(self) -> None:
        self.now += 61


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    return Client(monkeypatch)


CAUSES = {"disconnect": (Client.disconnect, 499), "deadline": (Client.expire, 503)}
REQUESTS = {"one image": GOOD["png"], "files": HttpRequest({}, GOOD["png"].parts * 3)}


def calls_first(cause: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which calls `cause` when it has its result."""

    def called(*arguments: Any) -> Any:
        result = function(*arguments)
        cause()
        return result

    return called


class Traced(FakeDetector):
    """Records the stages that it runs, and calls a function at the end of one of them."""

    def __init__(self, cause: Callable[[], None], at: str) -> None:
        super().__init__()
        self.stages: list[str] = []
        self._cause, self._at = cause, at

    def preprocess(self, image: RGBImage) -> PreprocessedImage:
        return self._record("preprocess", super().preprocess(image))

    def run(self, images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
        return self._record("forward", super().run(images))

    def _record(self, stage: str, result: Any) -> Any:
        self.stages.append(stage)
        if stage == self._at:
            self._cause()
        return result


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=list(REQUESTS))
@pytest.mark.parametrize("stage", ["arrival", "parse", "preprocess", "forward"])
def test_client_that_does_not_wait_any_more_ends_its_request(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    request_: HttpRequest,
    cause: str,
) -> None:
    """No stage starts after the one in which the client leaves or the deadline passes."""
    leave, status = CAUSES[cause]
    detector = Traced(lambda: leave(client), stage)
    served = pipeline(detector)
    parse = served.stages.parse
    monkeypatch.setattr(
        served.stages,
        "parse",
        calls_first(lambda: leave(client), parse) if stage == "parse" else parse,
    )
    rendered: list[object] = []
    monkeypatch.setattr(stages, "render", rendered.append)
    request = replace(client.request(request_), arrived=client.now)
    if stage == "arrival":
        leave(client)
    [response] = served.run([request])
    assert response.status == status
    assert rendered == []
    preprocessed = ["preprocess"] * len(request.parts)
    assert (
        detector.stages
        == {
            "arrival": [],
            "parse": [],
            "preprocess": preprocessed if len(preprocessed) == 1 else ["preprocess"],
            "forward": [*preprocessed, "forward"],
        }[stage]
    )
    assert served.queued == 0


def test_request_of_a_client_that_has_left_does_not_affect_its_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector, arrivals, left = SteppedDetector(), Arrivals(monkeypatch), list[bool]()
    served = pipeline(detector, server_forms_batches=False)
    futures = [served.submit(png_request(1))]
    assert detector.next_batch() == [1]
    leaving = replace(png_request(3), is_disconnected=lambda: bool(left))
    futures += [served.submit(request) for request in (png_request(2), leaving, png_request(4))]
    arrivals.wait(4)
    left.append(True)
    detector.end_batch()
    assert detector.next_batch() == [2, 4]
    detector.run_freely()
    assert [future.result(TIMEOUT_S).status for future in futures] == [200, 200, 499, 200]


def occupied(**settings: Any) -> tuple[Pipeline, SteppedDetector]:
    """A pipeline whose network is busy with a first request."""
    detector = SteppedDetector()
    served = pipeline(detector, server_forms_batches=False, **settings)
    served.submit(png_request(1))
    assert detector.next_batch() == [1]
    return served, detector


def test_full_queue_is_a_503_until_there_is_room() -> None:
    served, detector = occupied(max_queued_requests=3)
    accepted = [served.submit(png_request(red)) for red in (2, 3)]
    assert served.queued == 3
    rejected = served.submit(png_request(4)).result(TIMEOUT_S)
    require_error(rejected, 503, "overloaded")
    assert int(rejected.headers["Retry-After"]) >= 1
    detector.run_freely()
    assert [first_pixels(future.result(TIMEOUT_S)) for future in accepted] == [[2], [3]]
    assert first_pixels(served.submit(png_request(5)).result(TIMEOUT_S)) == [5]


def test_queue_is_full_by_bytes_too() -> None:
    size = len(png_request(1).parts[0].body)
    served, detector = occupied(max_queued_bytes=2 * size + size // 2)
    accepted = served.submit(png_request(2))
    require_error(served.submit(png_request(3)).result(TIMEOUT_S), 503, "overloaded")
    detector.run_freely()
    assert first_pixels(accepted.result(TIMEOUT_S)) == [2]


@pytest.mark.parametrize("name", ["json-of-two", "npy-of-two"])
def test_all_images_of_a_request_count(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Those of an array are known when it is decoded."""
    arrivals = Arrivals(monkeypatch)
    served, detector = occupied()
    arrivals.wait(1)
    accepted = served.submit(GOOD[name])
    arrivals.wait(2)
    assert served.queued == 3
    detector.run_freely()
    assert accepted.result(TIMEOUT_S).status == 200
    served.close()
    assert served.queued == 0


def test_request_that_comes_too_late_is_rejected_at_once() -> None:
    served, detector = occupied()
    served._admission.record_batch(1, 5.0)
    impatient = request_of(JPEG, headers={"x-d2serve-timeout-ms": "4000"})
    patient = request_of(JPEG, headers={"x-d2serve-timeout-ms": "59000"})
    rejected = served.submit(impatient).result(TIMEOUT_S)
    accepted = served.submit(patient)
    require_error(rejected, 503, "overloaded")
    assert b"would wait too long" in rejected.body
    assert rejected.headers["Retry-After"] == "5"
    detector.run_freely()
    assert accepted.result(TIMEOUT_S).status == 200


def test_queue_of_a_server_that_forms_batches_is_its_own() -> None:
    served = pipeline(max_queued_requests=1)
    responses = served.run([png_request(red) for red in (1, 2, 3)])
    assert [first_pixels(response) for response in responses] == [[1], [2], [3]]


@pytest.mark.parametrize(
    ("query", "keeps"),
    [
        pytest.param({}, False, id="json"),
        pytest.param({"response_type": "npz"}, False, id="masks"),
        pytest.param({"response_type": "png"}, True, id="overlay"),
        pytest.param({"format": "jumpstart"}, True, id="jumpstart"),
    ],
)
def test_responses_with_images_are_the_only_ones_that_need_pixels(
    query: Mapping[str, str], keeps: bool
) -> None:
    parsed = pipeline().stages.parse(request_of(image_bytes(image(1), "PNG"), query=query))
    assert parsed.keeps_pixels is keeps
