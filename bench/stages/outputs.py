"""Masks to RLE and polygons, and detections to responses, beside what Detectron2's users write."""

import io
import json
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from bench import upstream
from bench.comparison import OURS, Comparison, Implementation
from bench.workloads import Scale, image_of, size_text
from d2serve.detections import Detections, Picture
from d2serve.messages import RESPONSE_TYPES, Options, Wrapping
from d2serve.metadata import ModelFacts
from d2serve.outputs.response import Answer, render
from d2serve.outputs.result import segmentations
from d2serve.settings import Settings

RLE_BASELINE = "detectron2 + pycocotools"
DENSE_BASELINE = "detectron2 + numpy"
POLYGONS = f"{OURS}, polygons"
RESPONSES = {"json": "JSON with RLE", "jpeg": "overlay as JPEG", "npz": "NPZ of full masks"}


def masks(scale: Scale) -> Iterator[Comparison]:
    """A comparison for each size.

    Raises:
        RuntimeError: the RLE of d2serve differs from the baseline's.
    """
    for size_wh in scale.sizes_wh:
        found = detections(size_wh[::-1], scale.instances)
        implementations = {
            OURS: Implementation(partial(segmentations, found, "rle")),
            POLYGONS: Implementation(partial(segmentations, found, "polygon")),
        }
        if upstream.installed():
            implementations[RLE_BASELINE] = Implementation(partial(_upstream_rle, found))
            if _upstream_rle(found) != segmentations(found, "rle"):
                raise RuntimeError(
                    f"{size_text(size_wh)}: the RLE of {OURS} and {RLE_BASELINE} differ"
                )
        yield Comparison("masks", f"{scale.instances} masks, {size_text(size_wh)}", implementations)


def encoding(scale: Scale) -> Iterator[Comparison]:
    """A comparison for each response type and size; full masks only at the smallest size."""
    for size_wh in scale.sizes_wh:
        image, found = image_of(size_wh), detections(size_wh[::-1], scale.instances)
        for response_type, name in RESPONSES.items():
            if response_type == "npz" and size_wh != scale.sizes_wh[0]:
                continue
            calls: dict[str, Callable[[], bytes]] = {
                OURS: partial(_render, image, found, response_type)
            }
            if upstream.installed() and response_type == "json":
                calls[RLE_BASELINE] = partial(_json, found)
            if upstream.installed() and response_type == "npz":
                calls[DENSE_BASELINE] = partial(_npz, found)
            implementations = {name: Implementation(call) for name, call in calls.items()}
            note = f"{scale.instances} instances"
            yield Comparison("encode", f"{name}, {size_text(size_wh)}", implementations, note=note)


def detections(size_hw: tuple[int, int], instances: int) -> Detections:
    """Random instances of a tenth to half of the image's width and height."""
    generator = np.random.default_rng(0)
    sides = np.array(size_hw[::-1])
    spans = generator.uniform(0.1, 0.5, (instances, 2)) * sides
    starts = generator.random((instances, 2)) * (sides - spans)
    return Detections(
        size_hw,
        np.concatenate((starts, starts + spans), axis=1).astype(np.float32),
        np.ones(instances, dtype=np.float32),
        np.zeros(instances, dtype=np.int64),
        _blobs(generator, instances),
    )


def _blobs(generator: np.random.Generator, instances: int) -> npt.NDArray[np.float32]:
    """Float32[N, 28, 28] probabilities that fall off at a wavy outline, with some noise."""
    middles = np.linspace(-1, 1, 28)
    x, y = np.meshgrid(middles, middles)
    angles, phases = np.arctan2(y, x), generator.uniform(0, 2 * np.pi, (instances, 1, 1))
    outline = 0.75 + 0.15 * np.sin(3 * angles + phases) + 0.1 * np.cos(5 * angles - phases)
    noise = generator.normal(0, 0.2, (instances, 28, 28))
    return (1 / (1 + np.exp(8 * (np.hypot(x, y) - outline) + noise))).astype(np.float32)


def _render(image: Picture, found: Detections, response_type: str) -> bytes:
    answer = Answer(
        pictures=(image,),
        found=(found,),
        options=Options(score_threshold=0.0, max_detections=len(found)),
        media_type=RESPONSE_TYPES[response_type],
        wrapping=Wrapping(),
    )
    return render(answer, ModelFacts("model", ("thing",), 0.0, 100), Settings().max_response_bytes)


def _upstream_rle(found: Detections) -> list[dict[str, object]]:
    return upstream.encode_masks(upstream.paste(found))


def _json(found: Detections) -> bytes:
    content = {
        "boxes": found.boxes_xyxy.tolist(),
        "scores": found.scores.tolist(),
        "classes": found.classes.tolist(),
        "masks": _upstream_rle(found),
    }
    return json.dumps(content).encode("ascii")


def _npz(found: Detections) -> bytes:
    arrays = {"boxes": found.boxes_xyxy, "scores": found.scores, "classes": found.classes}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays, masks=upstream.paste(found))
    return file.getvalue()
