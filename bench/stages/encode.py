"""Detections to the bytes of an answer, beside what users of Detectron2 write by hand."""

import io
import json
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from bench import upstream
from bench.contest import OURS, Contest, Contestant
from bench.scale import Scale, picture_of, size_text
from bench.stages.masks import PEER as PASTING
from bench.stages.masks import detections
from handler.detections import Detections
from handler.model_facts import ModelFacts
from handler.options import RESPONSE_TYPES, Options
from handler.outputs.render import Answer, render
from handler.pictures import Picture
from handler.settings import Settings
from handler.wrapping import Wrapping

STAGE = "encode"
DENSE = "detectron2 + numpy"
NAMES = {"json": "JSON with RLE", "jpeg": "overlay as JPEG", "npz": "NPZ of full masks"}


def contests(scale: Scale) -> Iterator[Contest]:
    """One for each type of answer and size; full masks of large pictures exceed the limit."""
    for size_wh in scale.sizes_wh:
        picture, found = picture_of(size_wh), detections(size_wh[::-1], scale.instances)
        for response_type in NAMES:
            if response_type == "npz" and size_wh != scale.sizes_wh[0]:
                continue
            callables: dict[str, Callable[[], bytes]] = {
                OURS: partial(_ours, picture, found, response_type)
            }
            if upstream.installed():
                callables |= _peers(found, response_type)
            contestants = {name: Contestant(call) for name, call in callables.items()}
            case = f"{NAMES[response_type]}, {size_text(size_wh)}"
            yield Contest(STAGE, case, contestants, note=f"{scale.instances} instances")


def _ours(picture: Picture, found: Detections, response_type: str) -> bytes:
    answer = Answer(
        pictures=(picture,),
        found=(found,),
        options=Options(score_threshold=0.0, max_detections=len(found)),
        media_type=RESPONSE_TYPES[response_type],
        wrapping=Wrapping(),
    )
    return render(answer, ModelFacts("model", ("thing",), 0.0, 100), Settings().max_response_bytes)


def _peers(found: Detections, response_type: str) -> dict[str, Callable[[], bytes]]:
    if response_type == "json":
        return {PASTING: partial(_json, found)}
    return {DENSE: partial(_npz, found)} if response_type == "npz" else {}


def _json(found: Detections) -> bytes:
    content = {
        "boxes": found.boxes_xyxy.tolist(),
        "scores": found.scores.tolist(),
        "classes": found.classes.tolist(),
        "masks": upstream.paste_and_encode(found.masks, found.boxes_xyxy, found.size_hw),
    }
    return json.dumps(content).encode("ascii")


def _npz(found: Detections) -> bytes:
    masks = upstream.paste(found.masks, found.boxes_xyxy, found.size_hw)
    file = io.BytesIO()
    np.savez_compressed(
        file, boxes=found.boxes_xyxy, scores=found.scores, classes=found.classes, masks=masks
    )
    return file.getvalue()
