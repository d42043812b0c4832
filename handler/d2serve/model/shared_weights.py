"""One copy of a network's weights for all processes of this machine that run it on the CPU.

Each process converts and packs the weights in memory of its own. It then writes their bytes to a
file, unless another process has written one with the same bytes, and maps the file in their place.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from d2serve.model.mapped_tensors import ALIGNMENT, bytes_of, is_dense, is_packed, map_like, size_of

logger = logging.getLogger(__name__)
# Smaller tensors stay in the memory of each process.
MIN_BYTES = 16_384
# The file system must have room for this many times the file, which leaves space for programs.
FREE_FACTOR = 2
LOCK = "lock"
# Missing functions of torch, and file systems that are full, read-only or cannot lock.
FAILURES = (AttributeError, OSError, RuntimeError, TypeError, ValueError)


def share_weights(model: nn.Module, parent: Path | None = None) -> int:
    """Map the large weights of a network from a file that its processes share, in place.

    Outputs do not change. Where the file cannot be written or mapped, the weights stay as they are.

    Args:
        model: on the CPU; it has run before, because some layers pack weights on first use.
        parent: contains the folder of the files; by default the folder for temporary files.

    Returns:
        Number of bytes that are shared.
    """
    parent = parent or Path(tempfile.gettempdir())
    try:
        tensors = _large_tensors(model)
        with _locked_folder(parent) as folder:
            storage = _find_or_write(folder, tensors)
        equal = _equal_tensors(storage, tensors)
        shared = {id(each): map_like(each, storage, offset) for each, offset in equal}
    except FAILURES as error:
        logger.warning("each worker keeps a copy of the weights of its own: %s", error)
        return 0
    _replace(model, shared)
    return sum(size_of(each) for each in shared.values())


def _holders(model: nn.Module) -> Iterator[MutableMapping[str, Any]]:
    """The dictionaries that contain the tensors: parameters, buffers and attributes of modules."""
    for module in model.modules():
        attributes = vars(module)
        yield attributes
        yield from [each for each in attributes.values() if isinstance(each, dict)]


def _large_tensors(model: nn.Module) -> list[Tensor]:
    """The tensors to share, each once, in the order of the modules."""
    values = [value for holder in _holders(model) for value in holder.values()]
    tensors = {id(each): each for each in values if isinstance(each, Tensor)}
    usable = [each for each in tensors.values() if is_packed(each) or is_dense(each)]
    return [each for each in usable if size_of(each) >= MIN_BYTES]


def _replace(model: nn.Module, shared: dict[int, Tensor]) -> None:
    for holder in _holders(model):
        for name, value in holder.items():
            if not isinstance(value, Tensor) or (is_packed(value) and id(value) not in shared):
                continue
            # A view would keep the file mapped that all weights were read from.
            new = shared[id(value)] if id(value) in shared else value.detach().clone()
            is_parameter = isinstance(value, nn.Parameter)
            holder[name] = nn.Parameter(new, requires_grad=False) if is_parameter else new


def _offsets(tensors: Sequence[Tensor]) -> list[int]:
    """The position of each tensor in the file, and the end of the last one, in bytes."""
    offsets = [0]
    for tensor in tensors:
        offsets.append(offsets[-1] + -(-size_of(tensor) // ALIGNMENT) * ALIGNMENT)
    return offsets


@contextmanager
def _locked_folder(parent: Path) -> Iterator[Path]:
    """The folder of the files, which belongs to this user, while no other process changes it.

    Raises:
        OSError: it cannot be created or locked.
        ValueError: it belongs to another user, who could replace the weights.
    """
    folder = parent / f"d2serve-weights-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if not is_own or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(f"{folder} is not a folder that only this user can write to; remove it")
    with (folder / LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _find_or_write(folder: Path, tensors: Sequence[Tensor]) -> torch.UntypedStorage:
    """Map the file with the bytes of the tensors; files that no process uses are removed."""
    file = folder / _digest(tensors)
    _remove_unused(folder, file)
    if not _is_complete(file, tensors):
        _write(file, tensors)
    # Closed at the end of the process, which other processes recognize by the lock.
    fcntl.flock(os.open(file, os.O_RDONLY), fcntl.LOCK_SH)
    return _map(file)


def _map(file: Path) -> torch.UntypedStorage:
    """The content of a file. Pages that are written to become private copies."""
    size = file.stat().st_size
    content = torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8)
    return content.untyped_storage()


def _digest(tensors: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str(size_of(tensor)).encode())
        if not _has_gaps(tensor):
            digest.update(bytes_of(tensor).numpy().data)
    return digest.hexdigest()


def _has_gaps(tensor: Tensor) -> bool:
    """Return whether oneDNN leaves bytes of the memory undefined: with those of the compensation
    of zero points."""
    return is_packed(tensor) and tensor.dtype == torch.int8


def _remove_unused(folder: Path, kept: Path) -> None:
    for file in folder.iterdir():
        if file.name in (LOCK, kept.name):
            continue
        with file.open("rb") as opened, suppress(BlockingIOError):
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()


def _is_complete(file: Path, tensors: Sequence[Tensor]) -> bool:
    """Return whether a file exists and is undamaged, also after a crash of the machine."""
    if not file.is_file() or file.stat().st_size != _offsets(tensors)[-1]:
        return False
    found = {id(tensor) for tensor, _ in _equal_tensors(_map(file), tensors)}
    return all(id(tensor) in found or _has_gaps(tensor) for tensor in tensors)


def _equal_tensors(
    storage: torch.UntypedStorage, tensors: Sequence[Tensor]
) -> Iterator[tuple[Tensor, int]]:
    """The tensors whose bytes are in the storage, with their positions."""
    content = torch.empty(0, dtype=torch.uint8).set_(storage)
    *offsets, _ = _offsets(tensors)
    for tensor, offset in zip(tensors, offsets, strict=True):
        if torch.equal(content[offset : offset + size_of(tensor)], bytes_of(tensor)):
            yield tensor, offset


def _write(file: Path, tensors: Sequence[Tensor]) -> None:
    """Write a file at once; an interrupted process leaves one that the next one removes.

    Raises:
        OSError: the file system has too little space, or cannot be written to.
    """
    *offsets, end = _offsets(tensors)
    free = shutil.disk_usage(file.parent).free
    if free < FREE_FACTOR * end:
        raise OSError(
            f"{file.parent} has {free / 1e6:,.0f} MB of free space, sharing the weights needs "
            f"{FREE_FACTOR * end / 1e6:,.0f} MB"
        )
    temporary = file.with_suffix(".partial")
    with temporary.open("wb") as target:
        for offset, tensor in zip(offsets, tensors, strict=True):
            target.seek(offset)
            target.write(bytes_of(tensor).numpy().data)
        target.truncate(end)
    temporary.replace(file)
