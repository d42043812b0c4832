"""Valid requests of every kind, the seeds of the mutations."""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from tests.bodies import image_bytes, noise, npy_bytes

CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
BINARY_HEADER = "inference-header-content-length"
IMAGE = noise(9, 12, 3)


@dataclass(frozen=True)
class Seed:
    """A valid request: its body, and its headers with lower-case names."""

    name: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def seeds() -> list[Seed]:
    """At least one for each row of the contract's tables of bodies and responses."""
    return [*_images(), *_arrays(), *_documents(), *_response_types()]


def _images() -> Iterator[Seed]:
    image = Image.fromarray(IMAGE)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames: dict[str, Any] = {"save_all": True, "append_images": [image.rotate(90)]}
    encodings: dict[str, dict[str, Any]] = {
        "JPEG": {"exif": exif},
        "PNG": {"exif": exif},
        "WEBP": {"lossless": True},
        "BMP": {},
        "GIF": frames,
        "TIFF": {"compression": "tiff_lzw", **frames},
    }
    for name, options in encodings.items():
        yield Seed(name, image_bytes(image, name, **options), {"content-type": f"image/{name}"})
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK"):
        body = image_bytes(image.convert(mode), "TIFF" if mode == "CMYK" else "PNG")
        yield Seed(mode, body, {"content-type": "application/octet-stream"})
    yield Seed("progressive", image_bytes(image, "JPEG", progressive=True))
    yield Seed("animated", image_bytes(image, "PNG", **frames))


def _arrays() -> Iterator[Seed]:
    for name, array in {
        "hwc": IMAGE,
        "chw": IMAGE.transpose(2, 0, 1),
        "gray": IMAGE[:, :, 0] > 100,
        "floats": np.stack([IMAGE, IMAGE]) / 255,
        "uint16": IMAGE.astype(">u2"),
    }.items():
        headers = {"content-type": "application/x-npy", CUSTOM_ATTRIBUTES: "input_color=bgr"}
        yield Seed(name, npy_bytes(array), headers)


def _documents() -> Iterator[Seed]:
    encoded = b64encode(image_bytes(IMAGE, "PNG")).decode()
    lists = IMAGE.tolist()
    tensor = {"name": "a", "datatype": "UINT8", "shape": [9, 12, 3], "data": lists}
    texts = {"name": "b", "datatype": "BYTES", "shape": [1], "data": [encoded]}
    for name, document in {
        "image": {"image": encoded, "parameters": {"masks": "polygon", "classes": ["ball"]}},
        "images": {"images": [encoded, f"data:image/png;base64,{encoded}"]},
        "instances": {"instances": [encoded, {"b64": encoded}, lists]},
        "image_bytes": {"instances": [{"image_bytes": {"b64": encoded}}]},
        "data": {"data": json.dumps(lists)},
        "inputs": {"inputs": [encoded, lists]},
        "tensors": {"id": "7", "inputs": [tensor, texts], "outputs": [{"name": "boxes"}]},
    }.items():
        yield Seed(name, json.dumps(document).encode(), {"content-type": "application/json"})
    yield _binary_tensors()
    body = json.dumps({"instances": [{"data": encoded, "target": 0}]}).encode()
    yield Seed("generic", body, {"content-type": "text/plain", CUSTOM_ATTRIBUTES: "trace-1"})
    lines = f"{json.dumps(lists)}\n{json.dumps({'b64': encoded})}\n"
    yield Seed("lines", lines.encode(), {"content-type": "application/jsonlines"})


def _binary_tensors() -> Seed:
    """Tensors in binary after the JSON, and outputs in binary."""
    file = image_bytes(IMAGE, "PNG")
    values = [IMAGE.tobytes(), len(file).to_bytes(4, "little") + file]
    heads = [
        {"name": "a", "datatype": "UINT8", "shape": [9, 12, 3]},
        {"name": "b", "datatype": "BYTES", "shape": [1]},
    ]
    sizes = [{"parameters": {"binary_data_size": len(raw)}} for raw in values]
    inputs = [head | size for head, size in zip(heads, sizes, strict=True)]
    document = {"inputs": inputs, "parameters": {"binary_data_output": True, "timeout": 5}}
    body = json.dumps(document).encode()
    return Seed("binary tensors", b"".join([body, *values]), {BINARY_HEADER: str(len(body))})


def _response_types() -> Iterator[Seed]:
    body = image_bytes(IMAGE, "PNG")
    for accept in (
        "application/json;verbose;n_predictions=2",
        "application/jsonlines",
        "image/jpeg;q=0.5, image/png",
        "application/x-npy",
        "application/x-npz",
    ):
        yield Seed(accept, body, {"accept": accept})
    for attributes in ("format=coco;max_detections=3", '{"format": "clarify", "masks": "none"}'):
        yield Seed(attributes, body, {CUSTOM_ATTRIBUTES: attributes})


SEEDS_BY_NAME = {seed.name: seed for seed in seeds()}
