"""Compare the results of a client with those of a model in this process."""

import numpy as np

from d2serve.detections import Detections


def assert_equal(found: Detections, expected: Detections) -> None:
    """Equal up to the decimals of JSON and the noise of another batch."""
    assert found.size_hw == expected.size_hw
    assert found.class_names == expected.class_names
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=0.01)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert found.has_masks == expected.has_masks
    if expected.has_masks:
        masks = found.masks_dense(), expected.masks_dense()
        assert (masks[0] == masks[1]).mean() > 0.9999
    assert (found.keypoints is None) == (expected.keypoints is None)
    if found.keypoints is not None and expected.keypoints is not None:
        np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=0.01)
    assert (found.semantic is None) == (expected.semantic is None)
    if found.semantic is not None:
        assert (found.semantic == expected.semantic).mean() > 0.9999
    assert (found.panoptic is None) == (expected.panoptic is None)
    if found.panoptic is not None and expected.panoptic is not None:
        assert (found.panoptic.ids == expected.panoptic.ids).mean() > 0.999
        assert sorted(map(_key, found.panoptic.segments)) == sorted(
            map(_key, expected.panoptic.segments)
        )


def _key(segment: object) -> tuple[int, int, bool]:
    return segment.id, segment.class_index, segment.is_thing  # type: ignore[attr-defined]
