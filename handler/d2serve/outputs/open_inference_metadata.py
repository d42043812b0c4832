"""Documents of the GET routes of the Open Inference Protocol (KServe v2) and of KServe v1.

This module imports neither numpy nor torch, so that a reverse proxy can return the documents too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from d2serve.messages import OUTPUT_NAMES, VERSION

Document: TypeAlias = dict[str, Any]
SERVER_NAME = "d2serve"
PLATFORM = "detectron2_pytorch"
EXTENSIONS = ("binary_tensor_data", "model_configuration")
MODEL_VERSIONS = ("1",)


@dataclass(frozen=True)
class TensorMetadata:
    """The name, datatype and shape of a tensor; sides of -1 vary."""

    name: str
    datatype: str
    shape: tuple[int, ...]


# Each element is an encoded image or an NPY file. Instead of it, a client may send UINT8 and FP32
# arrays under any name.
INPUT = TensorMetadata("image", "BYTES", (-1,))
_OUTPUT_TYPES: dict[str, tuple[str, tuple[int, ...]]] = {
    "boxes": ("FP32", (-1, 4)),
    "scores": ("FP32", (-1,)),
    "classes": ("INT64", (-1,)),
    "masks": ("BYTES", (-1,)),
    "keypoints": ("FP32", (-1, -1, 3)),
    "panoptic": ("BYTES", (-1,)),
    "semantic": ("BYTES", (-1,)),
    "image_ids": ("INT64", (-1,)),
    "densepose": ("BYTES", (-1,)),
    "mask_scores": ("FP32", (-1,)),
}
# A response lacks tensors that the model does not have, and `image_ids` for a single image.
OUTPUTS = tuple(TensorMetadata(name, *_OUTPUT_TYPES[name]) for name in OUTPUT_NAMES)


def server_metadata() -> Document:
    """`GET /v2`."""
    return {"name": SERVER_NAME, "version": VERSION, "extensions": list(EXTENSIONS)}


def model_metadata(name: str, versions: Sequence[str] = MODEL_VERSIONS) -> Document:
    """`GET /v2/models/{name}`.

    Examples:
        >>> model_metadata("shapes")["inputs"]
        [{'name': 'image', 'datatype': 'BYTES', 'shape': [-1]}]
    """
    return {
        "name": name,
        "versions": list(versions),
        "platform": PLATFORM,
        "inputs": [_tensor(INPUT)],
        "outputs": [_tensor(tensor) for tensor in OUTPUTS],
    }


def model_config(name: str) -> Document:
    """`GET /v2/models/{name}/config`, Triton's extension `model_configuration`."""
    return {
        "name": name,
        "platform": PLATFORM,
        "backend": "python",
        "max_batch_size": 0,
        "input": [_config(INPUT)],
        "output": [_config(tensor) for tensor in OUTPUTS],
    }


def live(is_live: bool = True) -> Document:
    """`GET /v2/health/live`."""
    return {"live": is_live}


def ready(is_ready: bool = True) -> Document:
    """`GET /v2/health/ready`."""
    return {"ready": is_ready}


def model_ready(name: str, is_ready: bool = True) -> Document:
    """`GET /v2/models/{name}/ready`."""
    return {"name": name, "ready": is_ready}


def v1_model_status(name: str, is_ready: bool = True) -> Document:
    """`GET /v1/models/{name}` of KServe v1."""
    return {"name": name, "ready": is_ready}


def _tensor(tensor: TensorMetadata) -> Document:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _config(tensor: TensorMetadata) -> Document:
    kind = "TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"
    return {"name": tensor.name, "data_type": kind, "dims": list(tensor.shape)}
