"""Format `default`: the contract's own object."""

from typing import Any

from handler.outputs.formats.clarify import relative_rows
from handler.outputs.formats.result import Result
from handler.outputs.labels import label_texts
from handler.outputs.numbers import rounded_keypoints, rounded_pixels, rounded_shares
from handler.outputs.segment_maps import segment_maps
from handler.outputs.segmentations import segmentations


def default_object(result: Result) -> dict[str, Any]:
    """Boxes and keypoints absolute in pixels, `prediction` relative to the picture's size.

    `keypoints`, `panoptic` and `semantic` are there where the model has them.
    """
    found, names = result.detections, result.model.class_names
    height, width = found.size_hw
    return {
        "labels": label_texts(found, names),
        "boxes": rounded_pixels(found.boxes_xyxy),
        "scores": rounded_shares(found.scores),
        "classes": found.classes.tolist(),
        "names": [names[index] for index in found.classes],
        "masks": segmentations(found, result.mask_encoding),
        **({} if found.keypoints is None else {"keypoints": rounded_keypoints(found.keypoints)}),
        **segment_maps(result),
        "prediction": relative_rows(result),
        "image": {"width": width, "height": height},
    }
