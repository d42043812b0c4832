"""What a worker sends itself before it is ready."""

import pytest

from d2serve.detections import Picture
from d2serve.detector.base import Failure
from d2serve.serving.loading import warm_up
from d2serve.serving.pipeline import Pipeline
from d2serve.settings import Settings
from tests.fakes import FakeDetector, facts


def pipeline(detector: FakeDetector, **settings: int) -> Pipeline:
    return Pipeline(detector, facts("ball"), Settings(**settings))  # type: ignore[arg-type]


def test_each_size_goes_through_in_each_number() -> None:
    sizes_hw: list[tuple[int, ...]] = []

    def looks_at(picture: Picture) -> bool:
        sizes_hw.append(picture.shape[:2])
        return False

    detector = FakeDetector(looks_at)
    warm_up(pipeline(detector), [(64, 48), (20, 30)], [1, 3])
    assert detector.pictures_per_call == [1, 3, 1, 3]
    assert sizes_hw == [(48, 64)] * 4 + [(30, 20)] * 4


@pytest.mark.parametrize(
    ("failure", "status"), [(Failure.FAULT, 500), (Failure.OUT_OF_MEMORY, 507)]
)
def test_a_picture_that_fails_is_told(failure: Failure, status: int) -> None:
    detector = FakeDetector(lambda picture: len(picture) == 30, failure)
    with pytest.raises(RuntimeError, match=rf"1 of 20x30 failed: .+\({status}\)"):
        warm_up(pipeline(detector), [(64, 48), (20, 30)], [1])


def test_a_size_over_the_limits_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    detector = FakeDetector()
    warm_up(pipeline(detector, max_image_pixels=700), [(64, 48), (20, 30)], [1])
    assert detector.pictures_per_call == [1]
    assert "warming up with 1 of 64x48 is left out: the image is 64x48; at most 700" in caplog.text
