"""Decoding, resizing, masks to RLE and polygons, and detections to responses, beside libraries and
what users of Detectron2 write."""

import io
import json
from collections.abc import Iterator
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.io import ImageReadMode
from torchvision.io import decode_image as decode_by_torchvision
from torchvision.transforms.v2.functional import resize

from bench import upstream
from bench.comparison import DETECTRON2, OURS, Calls, Comparison
from bench.workloads import Scale, encode_image, image_of, size_text
from d2serve.building.config import load_config
from d2serve.detections import Detections, RGBImage
from d2serve.inputs.body import DecodedItem, decode_item
from d2serve.inputs.budget import RequestBudget
from d2serve.inputs.jpeg_decoders import decode_on_gpu
from d2serve.inputs.jpeg_operators import nvjpeg_operator
from d2serve.messages import RESPONSE_TYPES, Options, Part, ResponseEnvelope
from d2serve.metadata import ModelMetadata
from d2serve.model.preprocessing import resize_image, shortest_edge_size
from d2serve.outputs.response import ResponseContent, render
from d2serve.outputs.result import segmentations
from d2serve.settings import Settings

DECODE_NOTE = "d2serve also checks sizes, hostile headers and EXIF"
RESIZE_NOTE = "OpenCV's filter skips pixels where it shrinks; its pixels differ from Detectron2's"
MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "NPY": "application/x-npy"}


def decoding(scale: Scale) -> Iterator[Comparison]:
    """A comparison for each format and size."""
    for size_wh in scale.sizes_wh:
        for file_format, media_type in MEDIA_TYPES.items():
            body = encode_image(image_of(size_wh), file_format)
            part = Part(media_type, body)
            calls: Calls = {OURS: partial(decode, part)}
            calls |= _decoders(body, file_format)
            if file_format == "JPEG" and scale.device.type == "cuda":
                nvjpeg = nvjpeg_operator(scale.device)
                calls["nvJPEG, to the host"] = partial(decode_on_gpu, body, scale.device, nvjpeg)
            case = f"{file_format} {size_text(size_wh)}"
            yield Comparison("decode", case, calls, note=DECODE_NOTE)


def decode(part: Part) -> DecodedItem:
    """Decode an item of a request as a worker does."""
    settings = Settings()
    return decode_item(part, Options(0.0, 100), settings, RequestBudget(settings))


def _decoders(body: bytes, file_format: str) -> Calls:
    if file_format == "NPY":
        return {"numpy": lambda: np.load(io.BytesIO(body), allow_pickle=False)}

    def opencv() -> object:
        bgr = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
        assert bgr is not None
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)

    tensor = partial(torch.frombuffer, dtype=torch.uint8)
    return {
        "Pillow": lambda: np.asarray(Image.open(io.BytesIO(body)).convert("RGB")),
        "torchvision": lambda: decode_by_torchvision(tensor(bytearray(body)), ImageReadMode.RGB),
        "OpenCV": opencv,
    }


def resizing(scale: Scale) -> Iterator[Comparison]:
    """A comparison for each size."""
    config = load_config(scale.model.config).input
    baseline = upstream.Upstream(scale.model, scale.device) if upstream.installed() else None
    for size_wh in scale.sizes_wh:
        image = image_of(size_wh)
        height, width = shortest_edge_size(size_wh[::-1], config.min_size, config.max_size)
        channels_first = torch.from_numpy(image).permute(2, 0, 1)
        calls: Calls = {
            OURS: partial(resize_image, image, config),
            "torchvision": partial(resize, channels_first, [height, width], antialias=True),
            "OpenCV": partial(cv2.resize, image, (width, height)),
        }
        if baseline is not None:
            calls[DETECTRON2] = partial(baseline.resize, image)
        case = f"{size_text(size_wh)} to {size_text((width, height))}"
        yield Comparison("resize", case, calls, note=RESIZE_NOTE)


RLE_BASELINE = "detectron2 + pycocotools"
POLYGONS = f"{OURS}, polygons"
RESPONSES = {"json": "JSON with RLE", "jpeg": "overlay as JPEG"}


def masks(scale: Scale) -> Iterator[Comparison]:
    """A comparison for each size; RuntimeError where the RLE differs from the baseline's."""
    for size_wh in scale.sizes_wh:
        found, size = detections(size_wh[::-1], scale.instances), size_text(size_wh)
        calls: Calls = {
            OURS: partial(segmentations, found, "rle"),
            POLYGONS: partial(segmentations, found, "polygon"),
        }
        if upstream.installed():
            calls[RLE_BASELINE] = partial(upstream.paste_to_rle, found)
            if upstream.paste_to_rle(found) != segmentations(found, "rle"):
                raise RuntimeError(f"{size}: the RLE of {OURS} and {RLE_BASELINE} differ")
        yield Comparison("masks", f"{scale.instances} masks, {size}", calls)


def encoding(scale: Scale) -> Iterator[Comparison]:
    """A comparison for each response type and size."""
    for size_wh in scale.sizes_wh:
        image, found = image_of(size_wh), detections(size_wh[::-1], scale.instances)
        for kind, name in RESPONSES.items():
            calls: Calls = {OURS: partial(_render, image, found, kind)}
            if upstream.installed() and kind == "json":
                calls[RLE_BASELINE] = partial(_json, found)
            case, note = f"{name}, {size_text(size_wh)}", f"{scale.instances} instances"
            yield Comparison("encode", case, calls, note=note)


def detections(size_hw: tuple[int, int], instances: int) -> Detections:
    """Random instances of a tenth to half of the image's width and height."""
    generator = np.random.default_rng(0)
    sides = np.array(size_hw[::-1])
    spans = generator.uniform(0.1, 0.5, (instances, 2)) * sides
    starts = generator.random((instances, 2)) * (sides - spans)
    boxes = np.concatenate((starts, starts + spans), axis=1).astype(np.float32)
    scores, classes = np.ones(instances, np.float32), np.zeros(instances, np.int64)
    return Detections(size_hw, boxes, scores, classes, _blobs(generator, instances))


def _blobs(generator: np.random.Generator, instances: int) -> npt.NDArray[np.float32]:
    """Float32[N, 28, 28] probabilities that fall off at a wavy outline, with some noise."""
    x, y = np.meshgrid(np.linspace(-1, 1, 28), np.linspace(-1, 1, 28))
    angles, phases = np.arctan2(y, x), generator.uniform(0, 2 * np.pi, (instances, 1, 1))
    outline = 0.75 + 0.15 * np.sin(3 * angles + phases) + 0.1 * np.cos(5 * angles - phases)
    noise = generator.normal(0, 0.2, (instances, 28, 28))
    return (1 / (1 + np.exp(8 * (np.hypot(x, y) - outline) + noise))).astype(np.float32)


def as_json(image: RGBImage, found: Detections) -> bytes:
    """The JSON response with RLE."""
    return _render(image, found, "json")


def _render(image: RGBImage, found: Detections, kind: str) -> bytes:
    options = Options(score_threshold=0.0, max_detections=len(found))
    facts = (options, RESPONSE_TYPES[kind], ResponseEnvelope())
    metadata = ModelMetadata("model", ("thing",), 0.0, 100)
    content = ResponseContent((image,), (found,), *facts)
    return render(content, metadata, Settings().max_response_bytes).body


def _json(found: Detections) -> bytes:
    content = {"boxes": found.boxes_xyxy.tolist(), "scores": found.scores.tolist()}
    content |= {"classes": found.classes.tolist(), "masks": upstream.paste_to_rle(found)}
    return json.dumps(content).encode("ascii")
