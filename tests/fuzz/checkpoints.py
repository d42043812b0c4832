"""Checkpoints of every kind, the seeds of the mutations, and opcodes that call functions."""

import argparse
import collections
import io
import pickle
import zipfile
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as safetensors_bytes
from torch import nn

WEIGHTS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
ARRAYS = {name: tensor.numpy() for name, tensor in WEIGHTS.items()}
TRACE = "zqx-trace"


def _training_state() -> dict[str, Any]:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(3))])
    return {
        "optimizer": optimizer.state_dict(),
        "metrics": [np.float64(0.5), np.uint8(3), np.zeros((2, 2), "f2")],
        "config": argparse.Namespace(lr=0.1, kinds=collections.Counter("aab")),
        "shape": torch.Size([1, 2]),
        "parameter": nn.Parameter(torch.ones(1)),
    }


def _torch_file(content: Any, *, legacy: bool = False, protocol: int = 2) -> bytes:
    written = io.BytesIO()
    torch.save(
        content, written, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy
    )
    return written.getvalue()


def seeds() -> dict[str, bytes]:
    """A file of each format by its name."""
    trained = {"model": WEIGHTS, **_training_state()}
    averaged = {"model": WEIGHTS, "model_ema": {"module": WEIGHTS}}
    return {
        "zip.pth": _torch_file(trained),
        "averaged.pth": _torch_file(averaged),
        "legacy.pth": _torch_file(trained, legacy=True),
        "protocol4.pth": _torch_file(averaged, legacy=True, protocol=4),
        "network.pth": _torch_file({"model": nn.Linear(2, 2)}, legacy=True),
        **{
            f"protocol{protocol}.pkl": pickle.dumps(
                {"model": ARRAYS, "state": _training_state()}, protocol
            )
            for protocol in range(6)
        },
        "blobs.pkl": pickle.dumps({"blobs": {"conv1_w": ARRAYS["weight"]}}, 2),
        "model.safetensors": safetensors_bytes(WEIGHTS),
    }


def pickle_of(file: bytes) -> bytes:
    """The pickle in a zip file of torch."""
    with zipfile.ZipFile(io.BytesIO(file)) as packed:
        return packed.read(_pickle_name(packed))


def with_pickle(file: bytes, content: bytes) -> bytes:
    """The zip file with another pickle, and valid checksums."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(file)) as source, zipfile.ZipFile(written, "w") as target:
        changed = _pickle_name(source)
        for name in source.namelist():
            target.writestr(name, content if name == changed else source.read(name))
    return written.getvalue()


def _pickle_name(packed: zipfile.ZipFile) -> str:
    return next(name for name in packed.namelist() if name.endswith("/data.pkl"))


def calls() -> list[bytes]:
    """Opcodes that leave TRACE behind where a plain unpickler reads them."""
    code = f"open({TRACE!r}, 'w')".encode()
    argument = b"X" + len(code).to_bytes(4, "little") + code
    callables = [b"builtins\neval\n", b"__builtin__\nexec\n", b"os\nmkdir\n", b"os\nsystem\n"]
    return [
        *(b"c" + function + argument + b"\x85R0" for function in callables),
        *(b"(" + argument + b"i" + function + b"0" for function in callables),
        *(b"(c" + function + argument + b"o0" for function in callables),
        *(b"c" + function + argument + b"\x85\x81" for function in callables),
        b"ctorch\nload\n(" + argument + b"tR",
        b"cnumpy\nload\n(" + argument + b"tR0",
        b"c__builtin__\ngetattr\n(cos\nsystem\n" + argument + b"tR",
        b"}" + argument + b"Nsb",
    ]


# Opcodes, and numbers at the limits of their operands.
TOKENS = [
    *(bytes([opcode]) for opcode in b"().0123IJKLMNQRSTUVXabcdegh]ijlopqrstu}"),
    *(bytes([opcode]) for opcode in range(0x80, 0x99)),
    *(b"r\xff\xff\xff\xff", b"j\xff\xff\xff\xff", b"T\xff\xff\xff\x7f", b"X\xff\xff\xff\xff"),
    *(b"\x8b\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 7 + b"\x7f", b"\x96\0\0\0\0\0\x01\0\0"),
    *(b"J\xff\xff\xff\xff", b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 7 + b"\x7f"),
    *(b"numpy.core.multiarray", b"numpy._core.numeric", b"cnumpy\ndtype\n", b"O8", b"V99", b"f16"),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ctorch\nSize\n"),
    *(b"c_codecs\nencode\n", b"ccopy_reg\n_reconstructor\n", b"ccollections\nOrderedDict\n"),
]
