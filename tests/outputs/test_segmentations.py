import numpy as np
import pycocotools.mask
import pytest
from scipy.ndimage import binary_fill_holes

from d2serve.outputs.result import segmentations
from tests.fakes import detections_of
from tests.outputs.results import NOTHING, TWO, TWO_WITHOUT_MASKS, dense_masks


@pytest.mark.parametrize("encoding", ["rle", "polygon"])
@pytest.mark.parametrize("found", [NOTHING, TWO_WITHOUT_MASKS], ids=["nothing-found", "no-masks"])
def test_without_masks_there_are_no_segmentations(found: object, encoding: str) -> None:
    assert segmentations(found, encoding) == []  # type: ignore[arg-type]


def test_rle_decodes_to_the_masks() -> None:
    encoded = segmentations(TWO, "rle")
    assert [mask["size"] for mask in encoded] == [[80, 160]] * 2
    decoded = [pycocotools.mask.decode(mask) for mask in encoded]
    np.testing.assert_array_equal(decoded, dense_masks(TWO))


def test_polygons_rasterize_to_the_masks_with_their_holes_filled() -> None:
    for polygons, mask in zip(segmentations(TWO, "polygon"), dense_masks(TWO), strict=True):
        merged = pycocotools.mask.merge(pycocotools.mask.frPyObjects(polygons, *TWO.size_hw))
        rasterized = pycocotools.mask.decode(merged).astype(bool)
        np.testing.assert_array_equal(rasterized, binary_fill_holes(mask))


def test_an_instance_whose_mask_is_nowhere_set_keeps_its_place() -> None:
    found = detections_of((9, 9), [(1, 1, 5, 5), (2, 2, 8, 8)])
    assert found.masks is not None
    found.masks[0] = 0
    first, second = segmentations(found, "polygon")
    assert first == []
    assert second != []
    empty, _ = segmentations(found, "rle")
    assert pycocotools.mask.area(empty) == 0
