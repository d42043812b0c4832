"""Detections -> tensors of the Open Inference Protocol (KServe v2)."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from d2serve.detections import round_keypoints, round_pixels, round_scores
from d2serve.errors import RequestError
from d2serve.messages import OUTPUT_NAMES, ResponseEnvelope
from d2serve.outputs.result import Result, json_bytes, json_text, segmentations
from d2serve.outputs.segment_maps import segment_maps

Tensor: TypeAlias = dict[str, Any]


def open_inference_body(
    results: Sequence[Result | RequestError], envelope: ResponseEnvelope, model_name: str
) -> bytes:
    """The detections of all images, one after the other, as tensors.

    boxes FP32[N, 4] x1, y1, x2, y2 in pixels, scores FP32[N], classes INT64[N], masks BYTES[N],
    each the JSON of an RLE object or of polygons, missing if there are no masks. keypoints
    FP32[N, K, 3] x, y in pixels and score, panoptic and semantic BYTES[P], the JSON of the default
    format for each of P images, are present if the model has them. For several images, image_ids
    INT64[N] hold the position of each detection's image, and `parameters.errors` lists the images
    that failed, which do not count among the P.
    """
    good = [result for result in results if isinstance(result, Result)]
    requested = envelope.outputs or _default_outputs(len(results))
    errors = _errors(results)
    content = {
        "model_name": model_name,
        **({} if envelope.id is None else {"id": envelope.id}),
        **({"parameters": {"errors": errors}} if errors else {}),
        "outputs": [tensor for tensor in _tensors(good) if tensor["name"] in requested],
    }
    return json_bytes(content)


def _default_outputs(images: int) -> Sequence[str]:
    return OUTPUT_NAMES if images > 1 else [name for name in OUTPUT_NAMES if name != "image_ids"]


def _errors(results: Sequence[Result | RequestError]) -> list[dict[str, Any]]:
    return [
        {"image_id": position, **result.body()}
        for position, result in enumerate(results)
        if isinstance(result, RequestError)
    ]


def _tensors(results: Sequence[Result]) -> list[Tensor]:
    found = [result.detections for result in results]
    boxes = _joined([each.boxes_xyxy for each in found]).reshape(-1, 4)
    scores = _joined([each.scores for each in found])
    classes = [index for each in found for index in each.classes.tolist()]
    positions = [result.position for result in results for _ in range(len(result.detections))]
    return [
        _tensor("boxes", "FP32", round_pixels(boxes.ravel()), shape=list(boxes.shape)),
        _tensor("scores", "FP32", round_scores(scores)),
        _tensor("classes", "INT64", classes),
        *_mask_tensors(results),
        *_keypoint_tensors(results),
        *_map_tensors(results),
        _tensor("image_ids", "INT64", positions),
    ]


def _mask_tensors(results: Sequence[Result]) -> list[Tensor]:
    if all(result.detections.masks is None for result in results):
        return []
    texts = [
        json_text(segmentation)
        for result in results
        for segmentation in segmentations(result.detections, result.mask_encoding)
    ]
    return [_tensor("masks", "BYTES", texts)]


def _keypoint_tensors(results: Sequence[Result]) -> list[Tensor]:
    found = [each for result in results if (each := result.detections.keypoints) is not None]
    if not found:
        return []
    joined = np.concatenate(found)
    data = list(chain.from_iterable(round_keypoints(joined.reshape(-1, 3))))
    return [_tensor("keypoints", "FP32", data, shape=list(joined.shape))]


def _map_tensors(results: Sequence[Result]) -> list[Tensor]:
    texts: dict[str, list[str]] = {}
    for result in results:
        for name, content in segment_maps(result).items():
            texts.setdefault(name, []).append(json_text(content))
    return [_tensor(name, "BYTES", data) for name, data in texts.items()]


def _tensor(name: str, datatype: str, data: list[Any], shape: list[int] | None = None) -> Tensor:
    return {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data}


def _joined(arrays: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    return np.concatenate([np.empty(0, dtype=np.float32), *(array.ravel() for array in arrays)])
