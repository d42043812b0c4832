"""One request for each kind of error, including hostile ones: a table for tests of all layers."""

import io
import json
import pickle
import struct
import zlib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.bodies import image_bytes, noise, npy_bytes

CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class BadRequest:
    """A request and its error."""

    status: int
    code: str
    body: bytes
    content_type: str = "application/octet-stream"
    headers: Mapping[str, str] = field(default_factory=dict)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Length, type, content and checksum."""
    length, check = struct.pack(">I", len(content)), struct.pack(">I", zlib.crc32(kind + content))
    return length + kind + content + check


def png_of(width: int, height: int, *chunks: bytes) -> bytes:
    """A gray PNG with this size in its header, followed by the chunks."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"".join((PNG_SIGNATURE, png_chunk(b"IHDR", header), *chunks, png_chunk(b"IEND", b"")))


def npy_claiming(header: str) -> bytes:
    """An NPY file with this header and 24 bytes of values."""
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(24)


def pickled_npy() -> bytes:
    """An array of objects as numpy.save writes it."""
    file = io.BytesIO()
    np.save(file, np.array([[{"a": 1}, None]], dtype=object), allow_pickle=True)
    return file.getvalue()


def zeros(count: int) -> bytes:
    """`count` zeros, deflated to about a thousandth: one block of a million of them, repeated."""
    millions, rest = divmod(count, 1_000_000)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = deflate.compress(bytes(1_000_000)) + deflate.flush(zlib.Z_FULL_FLUSH)
    end = deflate.compress(bytes(rest)) + deflate.flush()
    checksum = struct.pack(">HH", count % 65_521, 1)  # Adler-32 of zeros
    return b"\x78\xda" + block * millions + end + checksum


def jpeg_claiming(side: int) -> bytes:
    """A small JPEG with this width and height in its header."""
    body = image_bytes(noise(16, 16, 3), "JPEG")
    frame = body.index(b"\xff\xc0") + 5
    return body[:frame] + struct.pack(">HH", side, side) + body[frame + 4 :]


def json_bytes(content: Any) -> bytes:
    return json.dumps(content).encode()


def attributes(text: str) -> Mapping[str, str]:
    return {CUSTOM_ATTRIBUTES: text}


IMAGE = image_bytes(noise(32, 48, 3), "PNG")
JPEG = image_bytes(noise(32, 48, 3), "JPEG")
TEXT = b64encode(IMAGE).decode()
NPY, JSON, LINES = "application/x-npy", "application/json", "application/jsonlines"


def _npy(array: npt.NDArray[Any], status: int = 422, code: str = "unprocessable") -> BadRequest:
    return BadRequest(status, code, npy_bytes(array), NPY)


def _bad(
    body: bytes, content_type: str = "", headers: Mapping[str, str] | None = None
) -> BadRequest:
    return BadRequest(400, "bad_request", body, content_type, headers or {})


def _large(body: bytes, content_type: str = "") -> BadRequest:
    return BadRequest(413, "too_large", body, content_type)


def _tensor(**fields: Any) -> bytes:
    return json_bytes({"inputs": [{"name": "a", **fields}]})


HOSTILE = {
    "png-of-50000x50000": _large(png_of(50_000, 50_000, png_chunk(b"IDAT", zeros(50_000_000)))),
    "jpeg-claiming-65535x65535": _large(jpeg_claiming(65_535)),
    "npy-claiming-10-tb": BadRequest(
        400,
        "bad_request",
        npy_claiming("{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000, )}"),
        NPY,
    ),
    "png-bomb-in-iccp": _bad(
        png_of(8, 8, png_chunk(b"iCCP", b"a\0\0" + zeros(200_000_000)), png_chunk(b"IDAT", b""))
    ),
    "png-bomb-in-ztxt": _bad(
        png_of(8, 8, png_chunk(b"zTXt", b"a\0\0" + zeros(200_000_000)), png_chunk(b"IDAT", b""))
    ),
    "10000-nested-lists": _bad(b"[" * 10_000 + b"]" * 10_000, JSON),
    "10000-nested-lists-in-a-document": _bad(
        b'{"instances": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", JSON
    ),
    "pickle-in-an-npy": BadRequest(422, "unprocessable", pickled_npy(), NPY),
}

REJECTED = {
    "empty": _bad(b""),
    "truncated-png": _bad(IMAGE[: len(IMAGE) // 2], "image/png"),
    "truncated-jpeg": _bad(JPEG[: len(JPEG) // 2], "image/jpeg"),
    "raw-values": _bad(bytes(300), NPY),
    "truncated-npy": _bad(npy_bytes(noise(9, 9, 3))[:-1], NPY),
    "pickle": _bad(pickle.dumps({"a": 1}), NPY),
    "broken-json": _bad(b'{"image": ', JSON),
    "json-not-utf-8": _bad(b'{"image": "\xff"}', JSON),
    "json-without-image": _bad(b"{}", JSON),
    "json-number": _bad(b"7", JSON),
    "json-null": _bad(b"null", JSON),
    "json-empty-list": BadRequest(422, "unprocessable", b"[]", JSON),
    "json-no-instances": _bad(json_bytes({"instances": []}), JSON),
    "json-two-keys": _bad(json_bytes({"image": TEXT, "images": [TEXT]}), JSON),
    "broken-base64": _bad(json_bytes({"image": "?" + TEXT}), JSON),
    "base64-of-empty-data": _bad(json_bytes({"image": ""}), JSON),
    "broken-line": _bad(b'{"image": \n', LINES),
    "no-lines": _bad(b"\n\n", LINES),
    "parameters-not-an-object": _bad(json_bytes({"image": TEXT, "parameters": [1]}), JSON),
    "option-unknown": _bad(IMAGE, "", attributes("zqxcanary=1")),
    "option-out-of-range": _bad(IMAGE, "", attributes("max_detections=0")),
    "option-outside-parameters": _bad(json_bytes({"image": TEXT, "masks": "none"}), JSON),
    "attributes-broken-json": _bad(IMAGE, "", attributes('{"masks":')),
    "n_predictions": _bad(IMAGE, "", {"accept": "application/json;n_predictions=0"}),
    "tensor-of-another-shape": _bad(_tensor(datatype="UINT8", shape=[2, 2], data=[1, 2, 3]), JSON),
    "tensor-in-shared-memory": _bad(
        _tensor(datatype="FP32", shape=[1], parameters={"shared_memory_region": "zqxcanary"}), JSON
    ),
    "tensor-without-its-bytes": _bad(
        _tensor(datatype="UINT8", shape=[1], parameters={"binary_data_size": 1}), JSON
    ),
    "tensor-without-shape": _bad(_tensor(datatype="FP32", data=[1, 2, 3]), JSON),
    "output-unknown": _bad(
        json_bytes(
            {
                "inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": [TEXT]}],
                "outputs": [{"name": "zqxcanary"}],
            }
        ),
        JSON,
    ),
    "accept": BadRequest(406, "not_acceptable", IMAGE, "image/png", {"accept": "text/html"}),
    "accept-q-0": BadRequest(
        406, "not_acceptable", IMAGE, "image/png", {"accept": "application/json;q=0"}
    ),
    "two-images-drawn": BadRequest(
        406, "not_acceptable", npy_bytes(noise(2, 9, 9, 3)), NPY, {"accept": "image/png"}
    ),
    "too-many-images": _large(npy_bytes(np.zeros((65, 4, 4, 3), np.uint8)), NPY),
    "too-many-instances": _large(json_bytes({"instances": [TEXT] * 65}), JSON),
    "npy-header-too-long": _large(
        npy_claiming("{'descr': '|u1', 'fortran_order': False, 'shape': (4, 6)}" + " " * 20_000),
        NPY,
    ),
    "content-encoding": BadRequest(
        415, "unsupported_media_type", IMAGE, "image/png", {"content-encoding": "zqxcanary"}
    ),
    "content-type": BadRequest(415, "unsupported_media_type", IMAGE, "text/zqxcanary"),
    "unknown-bytes": BadRequest(415, "unsupported_media_type", b"just text", "image/png"),
    "base64-of-unknown-bytes": BadRequest(
        415, "unsupported_media_type", json_bytes({"image": "aGVsbG8="}), JSON
    ),
    "rank": _npy(np.zeros(7, np.uint8)),
    "channels": _npy(np.zeros((4, 5, 5, 2), np.uint8)),
    "two-channels-last": _npy(np.zeros((8, 9, 2), np.uint8)),
    "no-values": _npy(np.zeros((0, 4), np.uint8)),
    "int64": _npy(np.zeros((8, 8), np.int64)),
    "complex": _npy(np.zeros((8, 8), np.complex64)),
    "text": _npy(np.full((8, 8), "zqxcanary")),
    "dates": _npy(np.zeros((8, 8), "datetime64[s]")),
    "structured": _npy(np.zeros((8, 8), [("zqxcanary", "u1")])),
    "nan": _npy(np.full((8, 8, 3), np.nan)),
    "infinity": _npy(np.full((8, 8, 3), np.inf, np.float16)),
    "out-of-range": _npy(np.full((8, 8, 3), 256.0)),
    "below-range": _npy(np.full((8, 8, 3), -2.0)),
    "out-of-the-requested-range": BadRequest(
        422,
        "unprocessable",
        npy_bytes(np.full((8, 8), 2.0)),
        NPY,
        attributes("input_range=0-1"),
    ),
    "other-than-the-requested-layout": BadRequest(
        422, "unprocessable", npy_bytes(noise(8, 9, 3)), NPY, attributes("input_layout=chw")
    ),
    "uneven-lists": BadRequest(422, "unprocessable", json_bytes({"image": [[1, 2], [3]]}), JSON),
    "lists-of-text": BadRequest(422, "unprocessable", json_bytes({"image": [["a", "b"]]}), JSON),
    "tensor-datatype": BadRequest(
        422, "unprocessable", _tensor(datatype="BF16", shape=[1, 1], data=[1]), JSON
    ),
    "tensor-of-larger-values": BadRequest(
        422, "unprocessable", _tensor(datatype="UINT8", shape=[1, 2], data=[1, 256]), JSON
    ),
    **HOSTILE,
}
