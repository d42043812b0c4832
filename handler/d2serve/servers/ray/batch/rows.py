"""Rows of the results: one per image, with its detections or its error."""

import json
from typing import Any

ERROR_FIELDS = ("code", "message", "hint")


def schema() -> Any:
    """The Arrow schema of a part.

    `rle` is a compressed RLE of COCO, whose size is the image's; `box` is x1, y1, x2, y2 in pixels.
    `maps` is JSON with the semantic or panoptic map of models that have one.
    """
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    detection = pa.struct(
        {
            "class_index": pa.int32(),
            "class_name": text,
            "score": number,
            "box": pa.list_(number),
            "rle": text,
            "polygons": pa.list_(pa.list_(pa.int32())),
            "keypoints": pa.list_(pa.list_(number)),
        }
    )
    return pa.schema(
        {
            "path": text,
            "width": pa.int32(),
            "height": pa.int32(),
            "error": pa.struct(dict.fromkeys(ERROR_FIELDS, text)),
            "detections": pa.list_(detection),
            "maps": text,
        }
    )


def failed_row(path: str, error: dict[str, str]) -> dict[str, Any]:
    """The row of an image that has no result."""
    return {"path": path, "error": {name: error.get(name, "") for name in ERROR_FIELDS}}


def response_row(path: str, status: int, body: bytes) -> dict[str, Any]:
    """The row of a response of the pipeline in the default format."""
    content = json.loads(body)
    if status != 200:
        return failed_row(path, content["error"])
    if "predictions" in content:
        count = len(content["predictions"])
        hint = "save each image as a file of its own"
        message = f"the file contains {count} images, expected one"
        return failed_row(path, {"code": "bad_request", "message": message, "hint": hint})
    maps = {name: content[name] for name in ("panoptic", "semantic") if name in content}
    image = content["image"]
    return {
        "path": path,
        "width": image["width"],
        "height": image["height"],
        "detections": _detections(content),
        "maps": json.dumps(maps) if maps else None,
    }


def _detections(content: dict[str, Any]) -> list[dict[str, Any]]:
    masks = content["masks"] or [None] * len(content["boxes"])
    keypoints = content.get("keypoints") or [None] * len(content["boxes"])
    names = ("classes", "names", "scores", "boxes")
    columns = zip(*(content[name] for name in names), masks, keypoints, strict=True)
    return [
        {
            "class_index": index,
            "class_name": name,
            "score": score,
            "box": box,
            "rle": mask["counts"] if isinstance(mask, dict) else None,
            "polygons": mask if isinstance(mask, list) else None,
            "keypoints": points,
        }
        for index, name, score, box, mask, points in columns
    ]
