"""Detections -> typed tensors of the Open Inference Protocol (KServe v2), for HTTP and gRPC."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from d2serve.messages import OUTPUT_NAMES
from d2serve.outputs.densepose import densepose_objects
from d2serve.outputs.result import Result, json_bytes, segmentations
from d2serve.outputs.segment_maps import segment_maps

BYTES = "BYTES"
Values: TypeAlias = npt.NDArray[Any] | list[bytes]
MAP_NAMES = ("panoptic", "semantic")
LENGTH_BYTES = 4


@dataclass(frozen=True)
class OutputTensor:
    """A tensor of a response.

    Attributes:
        name: one of OUTPUT_NAMES.
        datatype: FP32, INT64 or BYTES.
        shape: the sides; the number of elements for BYTES.
        values: Float32 or Int64 of the shape, or for BYTES a list of elements, each JSON in UTF-8.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Values

    def raw(self) -> bytes:
        """The values in the protocol's raw form.

        Numbers are in little-endian byte order; each element of BYTES follows its length as 4
        bytes.
        """
        if isinstance(self.values, list):
            return b"".join(
                len(element).to_bytes(LENGTH_BYTES, "little") + element for element in self.values
            )
        return self.values.astype(self.values.dtype.newbyteorder("<")).tobytes()


def output_tensors(results: Sequence[Result], names: Sequence[str]) -> list[OutputTensor]:
    """The detections of all images, one after the other, as tensors.

    boxes FP32[N, 4] x1, y1, x2, y2 in pixels, scores FP32[N], classes INT64[N], masks BYTES[N],
    each the JSON of an RLE object or of polygons, missing if there are no masks. keypoints
    FP32[N, K, 3] x, y in pixels and score, panoptic and semantic BYTES[P], the JSON of the default
    format for each of P images, densepose BYTES[N], each the JSON of an instance's box and PNG, and
    mask_scores FP32[N] are present if the model has them. image_ids INT64[N] hold the position of
    each detection's image.

    Args:
        results: of the images without an error.
        names: those of OUTPUT_NAMES to return; the others are not computed.
    """
    # Both maps of an image are encoded together.
    maps = [segment_maps(result) for result in results] if {*MAP_NAMES} & {*names} else []
    found = (
        _map(maps, name) if name in MAP_NAMES else _MAKERS[name](results)
        for name in OUTPUT_NAMES
        if name in names
    )
    return [tensor for tensor in found if tensor is not None]


def _boxes(results: Sequence[Result]) -> OutputTensor:
    empty = np.empty((0, 4), np.float32)
    return _numbers("boxes", [empty, *(result.detections.boxes_xyxy for result in results)])


def _scores(results: Sequence[Result]) -> OutputTensor:
    empty = np.empty(0, np.float32)
    return _numbers("scores", [empty, *(result.detections.scores for result in results)])


def _classes(results: Sequence[Result]) -> OutputTensor:
    empty = np.empty(0, np.int64)
    return _numbers("classes", [empty, *(result.detections.classes for result in results)])


def _masks(results: Sequence[Result]) -> OutputTensor | None:
    if not any(result.detections.has_masks for result in results):
        return None
    contents = [segmentations(each.detections, each.mask_encoding) for each in results]
    return _documents("masks", [mask for content in contents for mask in content])


def _keypoints(results: Sequence[Result]) -> OutputTensor | None:
    found = [each for result in results if (each := result.detections.keypoints) is not None]
    return _numbers("keypoints", found) if found else None


def _densepose(results: Sequence[Result]) -> OutputTensor | None:
    found = [each for result in results if (each := result.detections).surfaces is not None]
    if not found:
        return None
    return _documents("densepose", [item for each in found for item in densepose_objects(each)])


def _mask_scores(results: Sequence[Result]) -> OutputTensor | None:
    found = [each for result in results if (each := result.detections.mask_scores) is not None]
    return _numbers("mask_scores", found) if found else None


def _image_ids(results: Sequence[Result]) -> OutputTensor:
    positions = [result.position for result in results for _ in range(len(result.detections))]
    return _numbers("image_ids", [np.array(positions, np.int64)])


def _map(maps: Sequence[Mapping[str, Any]], name: str) -> OutputTensor | None:
    found = [each[name] for each in maps if name in each]
    return _documents(name, found) if found else None


_MAKERS: dict[str, Callable[[Sequence[Result]], OutputTensor | None]] = {
    "boxes": _boxes,
    "scores": _scores,
    "classes": _classes,
    "masks": _masks,
    "keypoints": _keypoints,
    "image_ids": _image_ids,
    "densepose": _densepose,
    "mask_scores": _mask_scores,
}


def _numbers(name: str, arrays: list[npt.NDArray[Any]]) -> OutputTensor:
    joined = np.concatenate(arrays)
    datatype = "INT64" if joined.dtype == np.int64 else "FP32"
    return OutputTensor(name, datatype, joined.shape, joined)


def _documents(name: str, contents: list[Any]) -> OutputTensor:
    elements = [json_bytes(content) for content in contents]
    return OutputTensor(name, BYTES, (len(elements),), elements)
