"""Small bodies that would unpack to large ones. Images and JSON: tests/bad_requests.py."""

import gzip
import io
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from d2serve.messages import HttpRequest, Part
from d2serve.serving.pipeline import Pipeline
from d2serve.settings import Settings
from tests.fakes import FakeDetector, metadata_of

LARGE = 50_000_000
MEMORY_BYTES = 20_000_000


def npz_bomb() -> bytes:
    """An archive with a thousandth of the size of its array."""
    file = io.BytesIO()
    np.savez_compressed(file, image=np.zeros(LARGE, np.uint8))
    return file.getvalue()


BOMBS = {
    "npz": (npz_bomb, "application/octet-stream", {}, 415),
    "npz as an array": (npz_bomb, "application/x-npy", {}, 400),
    "npz as declared": (npz_bomb, "application/x-npz", {}, 415),
    "gzip": (lambda: gzip.compress(bytes(LARGE)), "", {"content-encoding": "gzip"}, 415),
    "gzip as JSON": (
        lambda: gzip.compress(bytes(LARGE)),
        "application/json",
        {"content-encoding": "gzip"},
        415,
    ),
    "gzip without its encoding": (
        lambda: gzip.compress(bytes(LARGE)),
        "application/json",
        {},
        400,
    ),
    "deflate": (lambda: zlib.compress(bytes(LARGE)), "", {"content-encoding": "deflate"}, 415),
}


def unpacked_size(bomb: bytes) -> int:
    if bomb.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(bomb)) as packed:
            return sum(entry.file_size for entry in packed.infolist())
    return len(zlib.decompress(bomb, wbits=zlib.MAX_WBITS | 32))


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_rejected_without_unpacking_it(name: str) -> None:
    make, kind, headers, status = BOMBS[name]
    bomb = make()
    assert unpacked_size(bomb) > 500 * len(bomb), "the payload is not a bomb"
    pipeline = Pipeline(FakeDetector(), metadata_of("ball"), Settings())
    request = HttpRequest({"content-type": kind, **headers}, (Part(kind, bomb),))
    tracemalloc.start()
    try:
        [response] = pipeline.run([request])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert response.status == status
    assert peak < MEMORY_BYTES
