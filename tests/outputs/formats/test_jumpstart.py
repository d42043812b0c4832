import base64

import pytest

from d2serve.detections import Detections
from d2serve.outputs.accept import JPEG
from d2serve.outputs.formats import jumpstart_object
from d2serve.outputs.overlay import overlay_body
from d2serve.outputs.result import segmentations
from tests.fakes import detections_of
from tests.outputs.results import MODEL, NAMES, TWO, TWO_WITHOUT_MASKS, result_of


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(
            detections_of((9, 9), [], mask_side=None),
            {"normalized_boxes": [], "classes": [], "scores": []},
            id="nothing-found",
        ),
        pytest.param(
            TWO_WITHOUT_MASKS,
            {
                "normalized_boxes": [[0.1, 0.103125, 0.503125, 0.9], [0, 0, 1, 1]],
                "classes": [2, 0],
                "scores": [0.998, 0.75],
            },
            id="two-found",
        ),
    ],
)
def test_without_masks_there_are_four_keys(found: Detections, expected: dict[str, object]) -> None:
    assert jumpstart_object(result_of(found)) == {**expected, "labels": list(NAMES)}


@pytest.mark.parametrize("mask_encoding", ["rle", "polygon"])
def test_masks_are_written_as_in_the_other_formats(mask_encoding: str) -> None:
    content = jumpstart_object(result_of(TWO, mask_encoding=mask_encoding))
    assert content["masks"] == segmentations(TWO, mask_encoding)


def test_the_drawn_picture_comes_as_a_jpeg() -> None:
    result = result_of(TWO)
    body = base64.b64decode(jumpstart_object(result)["image_with_masks"], validate=True)
    assert body == overlay_body(result.picture, TWO, MODEL, JPEG)
