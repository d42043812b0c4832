"""Generated requests, with their expected responses, and a network that records its batches."""

import json
import math
from base64 import b64encode
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from threading import Lock

import numpy as np
from hypothesis import strategies as st

from d2serve.detections import RGBImage
from d2serve.detector.base import Failure, InferenceResult, PreprocessedImage
from d2serve.messages import HttpRequest, Part
from d2serve.serving.requests import HttpResponse
from tests.bodies import image_bytes, npy_bytes
from tests.core.stepping import SteppedDetector

SIZES_HW = ((2, 3), (3, 2), (4, 4))
# An image is identified by the red value of its first pixel; 0 is none.
MAX_IMAGES = 255


class Fate(Enum):
    """The end of an image, and its status."""

    DETECTED = 200
    UNDECODABLE = 400
    FAILS_PREPROCESSING = 500
    FAILS_FORWARD = 501
    TOO_LARGE_FOR_DEVICE = 507


ERRORS = {
    Fate.UNDECODABLE: "bad_request",
    Fate.FAILS_PREPROCESSING: "internal",
    Fate.FAILS_FORWARD: "internal",
    Fate.TOO_LARGE_FOR_DEVICE: "out_of_memory",
}


@dataclass(frozen=True)
class PlannedImage:
    """An image of a request."""

    fate: Fate
    size_hw: tuple[int, int]


@dataclass(frozen=True)
class PlannedRequest:
    """A request.

    Attributes:
        images: at least one; only those of a body with several files may be undecodable.
        kind: `files`, `array` or `instances`.
        leaves_after: number of checks of the connection after which the client has left; None
            if it stays.
        is_late: whether its deadline is over when it is submitted.
    """

    images: tuple[PlannedImage, ...]
    kind: str
    leaves_after: int | None
    is_late: bool

    def request(self, first: int) -> HttpRequest:
        """The request, whose images have the red values from `first` on."""
        bodies = [_png(first + index, image) for index, image in enumerate(self.images)]
        return HttpRequest(
            {},
            self._parts(bodies, first),
            request_id=f"request-{first}",
            is_disconnected=_left_after(self.leaves_after),
            deadline=0.0 if self.is_late else math.inf,
        )

    def _parts(self, bodies: Sequence[bytes], first: int) -> tuple[Part, ...]:
        if self.kind == "array":
            height, width = self.images[0].size_hw
            stack = [_pixels(first + n, height, width, each) for n, each in enumerate(self.images)]
            return (Part("application/x-npy", npy_bytes(np.stack(stack))),)
        if self.kind == "instances":
            instances = [b64encode(body).decode() for body in bodies]
            return (Part("application/json", json.dumps({"instances": instances}).encode()),)
        return tuple(Part("image/png", body) for body in bodies)


def _left_after(checks: int | None) -> Callable[[], bool]:
    if checks is None:
        return lambda: False
    lock, remaining = Lock(), iter(range(checks))

    def has_left() -> bool:
        with lock:
            return next(remaining, None) is None

    return has_left


def _pixels(red: int, height: int, width: int, image: PlannedImage) -> RGBImage:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[0, 0] = (red, list(Fate).index(image.fate), 0)
    return pixels


def _png(red: int, image: PlannedImage) -> bytes:
    body = image_bytes(_pixels(red, *image.size_hw, image), "PNG")
    return body[:40] if image.fate is Fate.UNDECODABLE else body


@st.composite
def requests(draw: st.DrawFn) -> PlannedRequest:
    kind = draw(st.sampled_from(["files", "array", "instances"]))
    count = draw(st.sampled_from([1, 1, 1, 2, 3, 6]))
    fates = st.sampled_from([Fate.DETECTED, Fate.DETECTED, Fate.DETECTED, *Fate])
    planned = [PlannedImage(draw(fates), draw(st.sampled_from(SIZES_HW))) for _ in range(count)]
    if kind == "array":
        planned = [PlannedImage(_decodable(each.fate), planned[0].size_hw) for each in planned]
    leaves_after = draw(st.sampled_from([None, None, None, 0, 1, 2, 3, 5]))
    return PlannedRequest(tuple(planned), kind, leaves_after, draw(st.integers(0, 9)) == 0)


def _decodable(fate: Fate) -> Fate:
    return Fate.DETECTED if fate is Fate.UNDECODABLE else fate


class RecordingDetector(SteppedDetector):
    """Ends images as planned, and records the batches that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[tuple[int, tuple[int, int]]]] = []

    def preprocess(self, image: RGBImage) -> PreprocessedImage:
        if self._fate(image) is Fate.FAILS_PREPROCESSING:
            raise ValueError
        return super().preprocess(image)

    def batch_key(self, image: PreprocessedImage) -> Hashable:
        return image.size_hw

    def run(self, images: Sequence[PreprocessedImage]) -> list[InferenceResult]:
        self.batches.append([(int(each.image[0, 0, 0]), each.size_hw) for each in images])
        return super().run(images)

    def _result(self, image: RGBImage, batch: int) -> InferenceResult:
        fate = self._fate(image)
        if fate is Fate.FAILS_FORWARD:
            return InferenceResult(Failure.ERROR, 1.0, batch)
        if fate is Fate.TOO_LARGE_FOR_DEVICE:
            return InferenceResult(Failure.OUT_OF_MEMORY, 1.0, batch)
        return super()._result(image, batch)

    @staticmethod
    def _fate(image: RGBImage) -> Fate:
        return list(Fate)[int(image[0, 0, 1])]


def require_expected(planned: PlannedRequest, first: int, response: HttpResponse) -> None:
    """Check that a response has the outcome of each image, in order."""
    content = json.loads(response.body)
    if response.status in (499, 503):
        assert planned.is_late if response.status == 503 else planned.leaves_after is not None
        assert list(content) == ["error"]
        return
    assert not planned.is_late
    assert planned.leaves_after != 0
    if len(planned.images) == 1 and planned.images[0].fate is not Fate.DETECTED:
        entries = [content]
        fate = planned.images[0].fate
        assert response.status == (500 if fate is Fate.FAILS_FORWARD else fate.value)
    else:
        assert response.status == 200
        entries = content.get("predictions", [content])
    assert len(entries) == len(planned.images)
    for red, (image, entry) in enumerate(zip(planned.images, entries, strict=True), first):
        if image.fate is Fate.DETECTED:
            height, width = image.size_hw
            assert round(entry["scores"][0] * 255) == red, "the result of another image"
            assert entry["image"] == {"width": width, "height": height}
        else:
            assert entry["error"]["code"] == ERRORS[image.fate]
