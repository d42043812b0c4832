"""Detections -> responses of the Open Inference Protocol (KServe v2), in JSON or binary."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from d2serve.detections import round_keypoints, round_pixels, round_scores
from d2serve.errors import RequestError
from d2serve.messages import BINARY_HEADER, OUTPUT_NAMES, ResponseEnvelope
from d2serve.outputs.accept import JSON
from d2serve.outputs.rendered import Rendered
from d2serve.outputs.result import Result, json_bytes
from d2serve.outputs.tensors import OutputTensor, output_tensors

BINARY = "application/octet-stream"
# JSON has fewer digits than float32, like the other formats.
ROUNDING = {
    "boxes": round_pixels,
    "scores": round_scores,
    "keypoints": round_keypoints,
    "mask_scores": round_scores,
}


def open_inference_response(
    results: Sequence[Result | RequestError], envelope: ResponseEnvelope, model_name: str
) -> Rendered:
    """The detections of all images as the tensors of `output_tensors`.

    Tensors that the envelope requests in binary follow the JSON in their order, with their size in
    `parameters.binary_data_size` and that of the JSON in a header. For several images, image_ids
    are among the tensors, and `parameters.errors` lists the images that failed.
    """
    good = [result for result in results if isinstance(result, Result)]
    tensors = output_tensors(good, envelope.outputs or _default_outputs(len(results)))
    raw = {each.name: each.raw() for each in tensors if each.name in envelope.binary_outputs}
    errors = _errors(results)
    content = {
        "model_name": model_name,
        **({} if envelope.id is None else {"id": envelope.id}),
        **({"parameters": {"errors": errors}} if errors else {}),
        "outputs": [_output(tensor, raw) for tensor in tensors],
    }
    head = json_bytes(content)
    if not raw:
        return Rendered(head, JSON)
    return Rendered(b"".join((head, *raw.values())), BINARY, {BINARY_HEADER: str(len(head))})


def _default_outputs(images: int) -> Sequence[str]:
    return OUTPUT_NAMES if images > 1 else [name for name in OUTPUT_NAMES if name != "image_ids"]


def _errors(results: Sequence[Result | RequestError]) -> list[dict[str, Any]]:
    return [
        {"image_id": position, **result.body()}
        for position, result in enumerate(results)
        if isinstance(result, RequestError)
    ]


def _output(tensor: OutputTensor, raw: dict[str, bytes]) -> dict[str, Any]:
    head = {"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype}
    if tensor.name in raw:
        return {**head, "parameters": {"binary_data_size": len(raw[tensor.name])}}
    return {**head, "data": _json_values(tensor)}


def _json_values(tensor: OutputTensor) -> list[Any]:
    """The values as a flat list."""
    if isinstance(tensor.values, list):
        return [element.decode() for element in tensor.values]
    if tensor.name not in ROUNDING:
        values: list[Any] = tensor.values.ravel().tolist()
        return values
    if tensor.name == "keypoints":
        return list(chain.from_iterable(round_keypoints(tensor.values.reshape(-1, 3))))
    return ROUNDING[tensor.name](tensor.values.ravel())
