"""Rows of the results: one per image, with its detections or its error."""

import json
from typing import Any

ERROR_FIELDS = ("code", "message", "hint")


def schema() -> Any:
    """The Arrow schema of a part.

    `rle` is a compressed RLE of COCO, whose size is the image's; `box` is x1, y1, x2, y2 in pixels.
    `densepose` is a PNG in base64 over its own `box`, x, y, width, height. `maps` is JSON with the
    semantic or panoptic map of models that have one.
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
            "mask_score": number,
            "densepose": pa.struct({"box": pa.list_(pa.int32()), "png": text}),
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
    nothing = [None] * len(content["boxes"])
    masks = content["masks"] or nothing
    columns = {
        "class_index": content["classes"],
        "class_name": content["names"],
        "score": content["scores"],
        "box": content["boxes"],
        "rle": [each["counts"] if isinstance(each, dict) else None for each in masks],
        "polygons": [each if isinstance(each, list) else None for each in masks],
        "keypoints": content.get("keypoints", nothing),
        "mask_score": content.get("mask_scores", nothing),
        "densepose": content.get("densepose", nothing),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
