"""Tensors whose bytes are in a storage that is mapped from a file."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Of oneDNN and of the vector units, in bytes.
ALIGNMENT = 64
CAPSULE = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
SUCCESS = 0


def is_packed(tensor: Tensor) -> bool:
    """Return whether a tensor is in a layout of oneDNN."""
    return tensor.is_mkldnn


def is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor's values are in memory without gaps."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return last or tensor.is_contiguous()


def size_of(tensor: Tensor) -> int:
    """Number of bytes of a packed or dense tensor.

    Raises:
        AttributeError, RuntimeError: this version of torch lacks the operators.
    """
    return int(torch.ops.mkldnn._nbytes(tensor)) if is_packed(tensor) else tensor.nbytes


def bytes_of(tensor: Tensor) -> Tensor:
    """UInt8[N]: a view of the memory of a packed or dense tensor, which must outlive it.

    Raises:
        AttributeError, RuntimeError: this version of torch lacks the operators.
    """
    packed = is_packed(tensor)
    address = torch.ops.mkldnn.data_ptr(tensor) if packed else tensor.data_ptr()
    memory = (ctypes.c_uint8 * size_of(tensor)).from_address(address)
    return torch.frombuffer(memory, dtype=torch.uint8)


def map_like(tensor: Tensor, storage: torch.UntypedStorage, offset: int) -> Tensor:
    """A tensor like a packed or dense one, whose bytes are at an offset of a storage.

    Raises:
        AttributeError, RuntimeError: this version of torch lacks the functions, or they fail.
    """
    if not is_packed(tensor):
        start = offset // tensor.element_size()
        empty = torch.empty(0, dtype=tensor.dtype)
        return empty.set_(storage, start, tensor.shape, tensor.stride())
    layout = torch.ops.mkldnn._get_mkldnn_serialized_md(tensor)
    result = _from_memory(tensor, storage.data_ptr() + offset, layout)
    if not torch.equal(torch.ops.mkldnn._get_mkldnn_serialized_md(result), layout):
        raise RuntimeError("torch maps a tensor in another layout of oneDNN")
    # torch does not own the memory: it stays mapped as long as the tensor exists.
    result.mapped_storage = storage  # type: ignore[attr-defined]
    return result


def _from_memory(tensor: Tensor, address: int, layout: Tensor) -> Tensor:
    """A packed tensor at an address, by the C interface for compiled models (AOTInductor), which
    torch keeps compatible."""
    library, number = _library(), ctypes.c_int64
    name = str(tensor.dtype).removeprefix("torch.")
    handle = ctypes.c_void_p()
    status = library.aoti_torch_create_tensor_from_blob_v2(
        ctypes.c_void_p(address),
        number(tensor.dim()),
        (number * tensor.dim())(*tensor.shape),
        (number * tensor.dim())(),  # the layout determines the strides
        number(0),
        ctypes.c_int32(getattr(library, f"aoti_torch_dtype_{name}")()),
        ctypes.c_int32(library.aoti_torch_device_type_cpu()),
        ctypes.c_int32(0),
        ctypes.byref(handle),
        ctypes.c_int32(library.aoti_torch_layout__mkldnn()),
        ctypes.c_void_p(layout.data_ptr()),
        number(layout.numel()),
    )
    if status != SUCCESS:
        raise RuntimeError(f"torch cannot map a tensor in a layout of oneDNN: status {status}")
    result: Tensor = torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr(
        CAPSULE(handle, None, None)
    )
    return result


@cache
def _library() -> Any:
    return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
