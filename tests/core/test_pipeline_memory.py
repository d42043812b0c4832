"""Decoded pixels are released as early as possible."""

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from d2serve.detections import RGBImage
from d2serve.detector.base import InferenceResult, PreprocessedImage
from d2serve.messages import HttpRequest
from d2serve.serving.request_log import received
from d2serve.serving.request_state import RequestState
from tests.core.requests import GOOD, image, json_request, pipeline, request_of
from tests.fakes import FakeDetector


class WatchesMemory(FakeDetector):
    """Records which of the decoded images exist when the network runs."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[bool] = []
        self._decoded: list[weakref.ref[Any]] = []

    def preprocess(self, image: RGBImage) -> PreprocessedImage:
        self._decoded.append(weakref.ref(image))
        return super().preprocess(image.copy())

    def run(self, images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
        self.kept = [decoded() is not None for decoded in self._decoded]
        return super().run(images)


NEEDED = {"overlay": ("png", "image/png"), "jumpstart": ("png", "application/json;verbose")}
UNNEEDED = {
    "json": ("png", "application/json"),
    "array": ("npy", "application/json"),
    "arrays": ("npy-of-two", "application/json"),
    "files": ("json-of-two", "application/jsonlines"),
    "masks": ("png", "application/x-npz"),
    "image is preferred but holds only one": (
        "npy-of-two",
        "image/png, application/json;q=0.5",
    ),
}


@pytest.mark.parametrize(
    ("name", "accept", "is_kept"),
    [
        *(pytest.param(*case, False, id=name) for name, case in UNNEEDED.items()),
        *(pytest.param(*case, True, id=name) for name, case in NEEDED.items()),
    ],
)
def test_pixels_exist_during_the_forward_pass_only_if_the_response_needs_them(
    name: str, accept: str, is_kept: bool
) -> None:
    detector = WatchesMemory()
    headers = {"content-type": GOOD[name].headers.get("content-type", ""), "accept": accept}
    [response] = pipeline(detector).run([HttpRequest(headers, GOOD[name].parts)])
    assert response.status == 200
    assert set(detector.kept) == {is_kept}


def test_array_with_images_that_only_several_need_keeps_its_pixels() -> None:
    """An NPY response holds one image, the second choice contains the images themselves."""
    accept = "application/x-npy, application/json;verbose;q=0.5"
    [response] = pipeline().run([HttpRequest({"accept": accept}, GOOD["npy-of-two"].parts)])
    assert response.status == 200
    assert response.body.count(b"image_with_masks") == 2


def test_numbers_of_a_json_array_are_released_when_decoded() -> None:
    request = json_request({"data": image(1).tolist()})
    stages, state = pipeline().stages, RequestState(request, received(request))
    parsed = stages.parse(request)
    numbers = parsed.items[0]
    assert isinstance(numbers, np.ndarray)
    released = weakref.ref(numbers)
    state.start(parsed)
    del parsed, numbers
    assert released() is not None
    stages.decode(state, item=0)
    assert released() is None


def test_finished_request_is_released() -> None:
    served = pipeline()
    request = request_of(GOOD["png"].parts[0].body)
    part = weakref.ref(request.parts[0])
    future = served.submit(request)
    del request
    assert future.result().status == 200
    served.close()
    assert part() is None
