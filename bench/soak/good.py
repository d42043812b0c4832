"""The good requests: every picture x the ways to send it x the forms of the answer."""

import io
import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bench.load.requests import CLOSED, KEPT, MARK, Request
from bench.soak.expected import Detected, Drawn, Expected, Marked, Read
from bench.soak.found import (
    TO_ANSWER,
    TO_GOLDEN,
    Found,
    Size,
    Tolerance,
    difference,
    read_clarify,
    read_coco,
    read_default,
    read_golden,
    read_npy,
    read_tensors,
)
from bench.soak.kinds import Kind
from scripts.errors import CommandError
from scripts.pictures import content_type_of
from tests.goldens.cases import ANSWERS

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
JSON, PNG, NPY = "application/json", "image/png", "application/x-npy"
# The form of the answer by name: the request's headers, and what takes the answer apart.
FORMS: Mapping[str, tuple[Mapping[str, str], Read]] = {
    "json": ({"Accept": JSON}, read_default),
    "coco": ({"Accept": JSON, ATTRIBUTES: "format=coco"}, read_coco),
    "clarify": ({"Accept": JSON, ATTRIBUTES: "format=clarify"}, read_clarify),
    "npy": ({"Accept": NPY}, read_npy),
}
DRAWN = {"Accept": PNG}
# Answers a request when nothing else is asked.
Ask = Callable[[Request], bytes]


@dataclass(frozen=True)
class Sample:
    """A picture, and what is to be found in it.

    Attributes:
        file: as it is sent.
        size_wh: upright, in pixels.
        found: upstream's golden where there is one for this model, else the quiet server's answer.
        tolerance: of answers.
        drawn: the quiet server's picture.
    """

    file: Path
    size_wh: Size
    found: Found
    tolerance: Tolerance
    drawn: Drawn


def good_kinds(pictures: Sequence[Path], model_name: str, ask: Ask, folder: Path) -> list[Kind]:
    """All of them; their bodies are written into the folder.

    Args:
        pictures: files.
        model_name: decides which goldens there are.
        ask: of a server that does nothing else.
        folder: an empty one.

    Raises:
        CommandError: the quiet server's own answers are wrong, or two pictures have the same one,
            so that an answer to the wrong client could not be told.
    """
    samples = [_sample(picture, model_name, ask) for picture in pictures]
    _check_that_they_differ(samples)
    kinds = [kind for sample in samples for kind in _kinds_of(sample, folder)]
    for kind in kinds:
        assert kind.expected
        if fault := kind.expected.fault(ask(kind.request)):
            raise CommandError(f"{kind.name}: before the soak began, the answer is wrong: {fault}")
    return kinds


def _sample(picture: Path, model_name: str, ask: Ask) -> Sample:
    plain = _request(picture, "json", picture, content_type_of(picture), FORMS["json"][0])
    drawn = _request(picture, "drawn", picture, content_type_of(picture), DRAWN)
    size_wh = _upright(picture).size
    golden = ANSWERS / f"{model_name}-{picture.stem}.json"
    found = read_golden(golden) if golden.exists() else read_default(ask(plain), size_wh)
    tolerance = TO_GOLDEN if golden.exists() else TO_ANSWER
    return Sample(picture, size_wh, found, tolerance, Drawn(ask(drawn)))


def _check_that_they_differ(samples: Sequence[Sample]) -> None:
    for one in samples:
        for other in samples:
            same = not difference(one.found, other.found, one.tolerance)
            if one is not other and (same or not one.drawn.fault(other.drawn.body)):
                raise CommandError(
                    f"{one.file.name} and {other.file.name} have the same answer, so that a mix-up "
                    "could not be told; take other PICTURES"
                )


def _kinds_of(sample: Sample, folder: Path) -> Iterator[Kind]:
    for file, content_type in _ways(sample.file, folder):
        for form, (headers, read) in FORMS.items():
            expected = Detected(read, sample.size_wh, sample.found, sample.tolerance)
            yield _kind(sample, form, file, content_type, headers, expected)
        yield _kind(sample, "drawn", file, content_type, DRAWN, sample.drawn)
    tensors = Detected(read_tensors, sample.size_wh, sample.found, sample.tolerance)
    document = _open_inference(sample.file, folder)
    yield _kind(sample, "tensors", document, JSON, {"Accept": JSON}, Marked(tensors))
    alone = Detected(read_default, sample.size_wh, sample.found, sample.tolerance)
    type_, headers = content_type_of(sample.file), FORMS["json"][0]
    request = _request(sample.file, "json, alone", sample.file, type_, headers, CLOSED)
    yield Kind(request, alone, hostile=False)


def _ways(picture: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """The file itself, and its pixels as PNG and as NPY."""
    yield picture, content_type_of(picture)
    upright = _upright(picture)
    png, npy = folder / f"{picture.name}.png", folder / f"{picture.name}.npy"
    upright.save(png)
    yield png, PNG
    np.save(npy, np.asarray(upright))
    yield npy, NPY


def _open_inference(picture: Path, folder: Path) -> Path:
    """A body with a mark, in which the picture is base64."""
    text = b64encode(picture.read_bytes()).decode()
    tensor = {"name": "picture", "shape": [1], "datatype": "BYTES", "data": [text]}
    file = folder / f"{picture.name}.json"
    content = {"id": MARK.decode(), "inputs": [tensor]}
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def _upright(picture: Path) -> Image.Image:
    with Image.open(io.BytesIO(picture.read_bytes())) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


def _kind(
    sample: Sample,
    form: str,
    file: Path,
    content_type: str,
    headers: Mapping[str, str],
    expected: Expected,
) -> Kind:
    request = _request(sample.file, form, file, content_type, headers)
    return Kind(request, expected, hostile=False)


def _request(
    picture: Path,
    form: str,
    file: Path,
    content_type: str,
    headers: Mapping[str, str],
    manner: str = KEPT,
) -> Request:
    name = f"{picture.name} as {content_type} -> {form}"
    fields = {**headers, "Content-Type": content_type}
    return Request(name, str(file.resolve()), fields, manner)
