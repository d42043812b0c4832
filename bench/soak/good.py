"""The good requests: every picture x the ways to send it x the forms of the answer."""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.load.requests import CLOSED, MARK
from bench.soak.expected import Detected, Expected, Marked
from bench.soak.found import read_default, read_tensors
from bench.soak.kinds import Kind
from bench.soak.samples import (
    DRAWN,
    FORMS,
    JSON,
    NPY,
    PNG,
    Ask,
    Sample,
    request_for,
    samples_of,
    upright,
)
from scripts.errors import CommandError
from scripts.pictures import content_type_of


def good_kinds(pictures: Sequence[Path], model_name: str, ask: Ask, folder: Path) -> list[Kind]:
    """All of them; their bodies are written into the folder.

    Args:
        pictures: files.
        model_name: decides which goldens there are.
        ask: of a server that does nothing else.
        folder: an empty one.

    Raises:
        CommandError: the quiet server's own answers are wrong, or two pictures have the same one.
    """
    kinds: list[Kind] = []
    for index, sample in enumerate(samples_of(pictures, model_name, ask)):
        own = folder / str(index)
        own.mkdir()
        kinds += _kinds_of(sample, own)
    for kind in kinds:
        assert kind.expected
        if fault := kind.expected.fault(ask(kind.request)):
            raise CommandError(f"{kind.name}: before the soak began, the answer is wrong: {fault}")
    return kinds


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
    request = request_for(sample.file, "json, alone", sample.file, type_, headers, CLOSED)
    yield Kind(request, alone, hostile=False)


def _ways(picture: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """The file itself, and its pixels as PNG and as NPY where it is none."""
    own_type, pixels = content_type_of(picture), upright(picture)
    yield picture, own_type
    png, npy = folder / "picture.png", folder / "picture.npy"
    if own_type != PNG:
        pixels.save(png)
        yield png, PNG
    np.save(npy, np.asarray(pixels))
    yield npy, NPY


def _open_inference(picture: Path, folder: Path) -> Path:
    """A body with a mark, in which the picture is base64."""
    text = b64encode(picture.read_bytes()).decode()
    tensor = {"name": "picture", "shape": [1], "datatype": "BYTES", "data": [text]}
    file = folder / "tensors.json"
    content = {"id": MARK.decode(), "inputs": [tensor]}
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def _kind(
    sample: Sample,
    form: str,
    file: Path,
    content_type: str,
    headers: Mapping[str, str],
    expected: Expected,
) -> Kind:
    request = request_for(sample.file, form, file, content_type, headers)
    return Kind(request, expected, hostile=False)
