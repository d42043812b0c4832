import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from handler.detector.interface import Outcome
from handler.messages import HttpRequest, HttpResponse, Part
from handler.pictures import Picture
from handler.pipeline import Pipeline
from handler.settings import Settings
from tests.bodies import image_bytes, noise, npy_bytes
from tests.fakes import FakeDetector

NAMES = ("ball", "cube")
SERVER_TIMING = re.compile(
    r'decode;dur=\d+\.\d\d, forward;dur=\d+\.\d\d, encode;dur=\d+\.\d\d, batch;desc="(\d+)"'
)


def pipeline(detector: Any = None, names: Sequence[str] = NAMES, **settings: Any) -> Pipeline:
    return Pipeline(detector or FakeDetector(), names, Settings(**settings))


def request_of(
    body: bytes, content_type: str = "", headers: Mapping[str, str] | None = None
) -> HttpRequest:
    return HttpRequest(headers or {}, (Part(content_type, body),))


def picture(red: int, height: int = 40, width: int = 60) -> Picture:
    """Noise whose first pixel tells it from others."""
    pixels = noise(height, width, 3, seed=red)
    pixels[0, 0] = (red, 0, 0)
    return pixels


def png_request(red: int, accept: str | None = None) -> HttpRequest:
    headers = {} if accept is None else {"accept": accept}
    return request_of(image_bytes(picture(red), "PNG"), "image/png", headers)


GOOD = {
    "png": png_request(10),
    "bmp": request_of(image_bytes(picture(20, 80, 30), "BMP"), "application/octet-stream"),
    "npy": request_of(npy_bytes(picture(30)), "application/x-npy"),
    "npy-of-two": request_of(npy_bytes(np.stack((picture(40), picture(50)))), "application/x-npy"),
    "drawn-png": png_request(60, accept="image/png"),
    "drawn-jpeg": png_request(70, accept="image/jpeg"),
}
BAD = {
    "empty": (request_of(b""), 400, "bad_request"),
    "truncated": (request_of(image_bytes(picture(1), "PNG")[:500]), 400, "bad_request"),
    "raw": (request_of(bytes(99), "application/x-npy"), 400, "bad_request"),
    "accept": (png_request(1, accept="text/html"), 406, "not_acceptable"),
    "large": (request_of(image_bytes(noise(99, 99), "PNG")), 413, "too_large"),
    "text": (request_of(b"hello", "text/plain"), 415, "unsupported_media_type"),
    "int64": (request_of(npy_bytes(np.zeros((9, 9), dtype=np.int64))), 422, "unprocessable"),
}
MAX_PIXELS = 5000


def scores(response: HttpResponse) -> list[float]:
    content = json.loads(response.body)
    objects = content.get("predictions", [content])
    return [round(item["scores"][0] * 255) for item in objects]


def require_error(response: HttpResponse, status: int, code: str) -> None:
    content = json.loads(response.body)
    assert (response.status, response.content_type) == (status, "application/json")
    assert list(content) == ["error"]
    assert sorted(content["error"]) == ["code", "hint", "message"]
    assert content["error"]["code"] == code
    assert all(isinstance(text, str) and text for text in content["error"].values())


def batch_of(responses: HttpResponse) -> int:
    match = SERVER_TIMING.fullmatch(responses.headers["Server-Timing"])
    assert match is not None
    return int(match[1])


def test_a_batch_of_no_requests_gives_no_responses() -> None:
    detector = FakeDetector()
    assert pipeline(detector).run([]) == []
    assert detector.pictures_per_call == []


def test_one_picture_is_answered_with_what_was_found_in_it() -> None:
    (response,) = pipeline().run([png_request(51)])
    content = json.loads(response.body)
    assert (response.status, response.content_type) == (200, "application/json")
    assert content["labels"] == ["ball 20%"]
    assert content["boxes"] == [[0.25, 0.5, 59, 39.5]]
    assert content["image"] == {"width": 60, "height": 40}


def test_all_good_pictures_of_a_batch_go_through_the_detector_together() -> None:
    detector = FakeDetector()
    pipeline(detector).run([*GOOD.values(), BAD["empty"][0]])
    assert detector.pictures_per_call == [7]


def test_a_batch_of_bad_requests_alone_never_reaches_the_detector() -> None:
    detector = FakeDetector()
    pipeline(detector, max_image_pixels=MAX_PIXELS).run([request for request, _, _ in BAD.values()])
    assert detector.pictures_per_call == []


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_gets_its_own_status_and_the_contracts_error(name: str) -> None:
    request, status, code = BAD[name]
    (response,) = pipeline(max_image_pixels=MAX_PIXELS).run([request])
    require_error(response, status, code)


def test_in_a_mixed_batch_everyone_gets_in_order_what_they_get_alone() -> None:
    served = pipeline(max_image_pixels=MAX_PIXELS)
    requests = [*GOOD.values(), *(request for request, _, _ in BAD.values())]
    np.random.default_rng(1).shuffle(requests)  # type: ignore[arg-type]
    together = served.run(requests)
    alone = [response for request in requests for response in served.run([request])]
    assert [(r.status, r.content_type, r.body) for r in together] == [
        (r.status, r.content_type, r.body) for r in alone
    ]
    assert sum(response.status == 200 for response in together) == len(GOOD)


def test_answers_belong_to_the_requests_that_they_are_given_to() -> None:
    bad = BAD["truncated"][0]
    requests = [GOOD["npy-of-two"], bad, png_request(7), GOOD["npy"], bad, png_request(8)]
    first, _, second, third, _, fourth = pipeline().run(requests)
    assert [scores(response) for response in (first, second, third, fourth)] == [
        [40, 50],
        [7],
        [30],
        [8],
    ]


def test_accept_is_heard_for_each_request() -> None:
    accepts = ["image/png", None, "image/jpeg", "application/json", "text/html", "image/*"]
    responses = pipeline().run([png_request(9, accept) for accept in accepts])
    assert [(response.status, response.content_type) for response in responses] == [
        (200, "image/png"),
        (200, "application/json"),
        (200, "image/jpeg"),
        (200, "application/json"),
        (406, "application/json"),
        (200, "image/jpeg"),
    ]
    assert responses[0].body.startswith(b"\x89PNG")
    assert responses[2].body.startswith(b"\xff\xd8")


def test_errors_are_json_whatever_type_was_wanted() -> None:
    (response,) = pipeline().run(
        [request_of(b"?", "image/png", {"accept": "image/png"})],
    )
    require_error(response, 415, "unsupported_media_type")


def test_several_pictures_come_as_predictions_in_order() -> None:
    (response,) = pipeline().run([GOOD["npy-of-two"]])
    assert list(json.loads(response.body)) == ["predictions"]
    assert scores(response) == [40, 50]


def test_a_bad_picture_among_several_has_its_error_in_its_place() -> None:
    parts = [*GOOD["png"].parts, *BAD["truncated"][0].parts, *GOOD["npy"].parts]
    (response,) = pipeline().run([HttpRequest({}, tuple(parts))])
    first, second, third = json.loads(response.body)["predictions"]
    assert response.status == 200
    assert (first["scores"], third["scores"]) == ([0.039216], [0.117647])
    assert second["error"]["code"] == "bad_request"


@pytest.mark.parametrize("accept", ["image/png", "image/jpeg"])
def test_several_pictures_cannot_be_drawn(accept: str) -> None:
    request = HttpRequest({"accept": accept}, GOOD["npy-of-two"].parts)
    neighbour = png_request(5)
    response, other = pipeline().run([request, neighbour])
    require_error(response, 406, "not_acceptable")
    assert scores(other) == [5]


def test_too_many_pictures_in_a_request_are_a_413() -> None:
    (response,) = pipeline(max_images_per_request=1).run([GOOD["npy-of-two"]])
    require_error(response, 413, "too_large")


def test_a_picture_whose_forward_failed_fails_its_request_alone() -> None:
    detector = FakeDetector(fails_on=lambda pixels: bool(pixels[0, 0, 0] == 2))
    responses = pipeline(detector).run([png_request(1), png_request(2), png_request(3)])
    assert [response.status for response in responses] == [200, 500, 200]
    require_error(responses[1], 500, "internal")
    assert (scores(responses[0]), scores(responses[2])) == ([1], [3])


def test_a_failed_picture_among_several_has_its_error_in_its_place() -> None:
    detector = FakeDetector(fails_on=lambda pixels: bool(pixels[0, 0, 0] == 50))
    (response,) = pipeline(detector).run([GOOD["npy-of-two"]])
    good, failed = json.loads(response.body)["predictions"]
    assert response.status == 200
    assert good["classes"] == [0]
    assert failed["error"]["code"] == "internal"


class BrokenDetector:
    """Raises, which no detector should."""

    def detect(self, pictures: Sequence[Picture]) -> list[Outcome]:
        raise ValueError(f"secret words at /opt/ml/model, {len(pictures)} pictures")


def test_a_detector_that_raises_gives_500_and_leaves_the_clients_own_errors() -> None:
    requests = [png_request(1), BAD["text"][0], GOOD["npy-of-two"]]
    first, second, third = pipeline(BrokenDetector()).run(requests)
    require_error(first, 500, "internal")
    require_error(second, 415, "unsupported_media_type")
    assert [item["error"]["code"] for item in json.loads(third.body)["predictions"]] == [
        "internal",
        "internal",
    ]
    assert b"secret" not in first.body + third.body


class BrokenHeaders(Mapping[str, str]):
    """Headers whose reading raises."""

    def __getitem__(self, name: str) -> str:
        raise RuntimeError("secret words at /opt/ml/model/handler/pipeline.py")

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def test_a_fault_while_decoding_is_a_500_without_its_cause_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faulty = HttpRequest(BrokenHeaders(), GOOD["png"].parts)
    with caplog.at_level(logging.ERROR):
        response, neighbour = pipeline().run([faulty, png_request(5)])
    require_error(response, 500, "internal")
    for word in (b"secret", b"/opt", b"Traceback", b".py", b"RuntimeError"):
        assert word not in response.body
    assert "secret words" in caplog.text
    assert scores(neighbour) == [5]


def test_a_fault_while_encoding_is_a_500_without_its_cause_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unnamed = FakeDetector(finds_class=len(NAMES))
    with caplog.at_level(logging.ERROR):
        response, neighbour = pipeline(unnamed).run([png_request(5), BAD["text"][0]])
    require_error(response, 500, "internal")
    for word in (b"index", b"Traceback", b".py", b"IndexError"):
        assert word not in response.body
    assert "IndexError" in caplog.text
    require_error(neighbour, 415, "unsupported_media_type")


def test_server_timing_tells_the_stages_and_how_many_ran_together() -> None:
    requests = [png_request(1), BAD["text"][0], GOOD["npy-of-two"], GOOD["drawn-png"]]
    responses = pipeline().run(requests)
    assert [batch_of(response) for response in responses] == [4, 0, 4, 4]
    assert "forward;dur=12.50" in responses[0].headers["Server-Timing"]
    assert "forward;dur=0.00" in responses[1].headers["Server-Timing"]


def test_a_failed_forward_still_tells_its_time() -> None:
    (response,) = pipeline(FakeDetector(fails_on=lambda _: True)).run([png_request(1)])
    assert batch_of(response) == 1
    assert "forward;dur=12.50" in response.headers["Server-Timing"]


def test_a_drawn_picture_is_of_the_upright_pictures_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    body = image_bytes(picture(1, height=40, width=60), "PNG", exif=exif)
    drawn, described = pipeline().run(
        [request_of(body, headers={"accept": "image/png"}), request_of(body)]
    )
    assert drawn.body[16:24] == (40).to_bytes(4, "big") + (60).to_bytes(4, "big")
    assert json.loads(described.body)["image"] == {"width": 40, "height": 60}
