"""An unpickler that imports nothing and calls only the functions listed here.

`torch.load` accepts this module in place of `pickle`. Arrays, tensors and dicts become what they
were; all other objects become placeholders, so that training state of any kind can be skipped.
"""

import io
import pickle
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import torch

from d2serve.building import pickled_arrays
from d2serve.building.opaque import CURRENT_NAMES, Opaque, opaque_attribute, opaque_type
from d2serve.errors import CheckpointError

UnpicklingError = pickle.UnpicklingError
LATIN1 = {"latin1", "latin-1", "iso-8859-1"}


def _new_dict(*arguments: Any) -> dict[Any, Any]:
    """Create an OrderedDict, a Counter or a defaultdict; the latter's argument is its factory."""
    content = arguments[0] if arguments else ()
    return dict(content) if isinstance(content, (dict, list, tuple)) else {}


def _encode(text: Any, encoding: Any = "latin1", *_: Any) -> bytes:
    """Create the bytes that protocols before 3 have as text."""
    if not isinstance(text, str) or encoding not in LATIN1:
        raise CheckpointError(f"it calls _codecs.encode with {encoding!r:.40}, expected latin1")
    return text.encode("latin1")


def _bytes(*arguments: Any) -> Any:
    return _encode(*arguments) if arguments and isinstance(arguments[0], str) else b""


def _size(*arguments: Any) -> tuple[Any, ...]:
    return tuple(*arguments)


def _storage_of_bytes(content: Any) -> Any:
    """Read a storage that pickle, rather than torch.save, wrote."""
    return torch.load(
        io.BytesIO(content),
        map_location="cpu",
        weights_only=False,
        pickle_module=sys.modules[__name__],
    )


def _new_object(of_type: Any = None, *_: Any) -> Any:
    """Create an object as copyreg does, which protocols 0 and 1 use."""
    return _call(of_type, ())


CONSTRUCTORS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _new_dict,
    ("collections", "defaultdict"): _new_dict,
    ("collections", "Counter"): _new_dict,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _bytes,
    ("builtins", "bytearray"): _bytes,
    ("builtins", "getattr"): opaque_attribute,
    ("copyreg", "_reconstructor"): _new_object,
    ("copyreg", "__newobj__"): _new_object,
    ("copyreg", "__newobj_ex__"): _new_object,
    ("numpy", "ndarray"): pickled_arrays.PickledArray,
    ("numpy", "dtype"): pickled_arrays.PickledType,
    ("numpy._core.multiarray", "_reconstruct"): pickled_arrays.empty_array,
    ("numpy._core.multiarray", "scalar"): pickled_arrays.number,
    ("numpy._core.numeric", "_frombuffer"): pickled_arrays.array_of_buffer,
    ("torch", "Size"): _size,
    ("torch.storage", "_load_from_bytes"): _storage_of_bytes,
    ("torch._utils", "_rebuild_tensor"): pickled_arrays.tensor,
    ("torch._utils", "_rebuild_tensor_v2"): pickled_arrays.tensor,
    ("torch._utils", "_rebuild_parameter"): pickled_arrays.parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): pickled_arrays.parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): pickled_arrays.tensor_of_type,
}
# Objects that set their own state.
STATEFUL = (pickled_arrays.PickledArray, pickled_arrays.PickledType)


class BoundedFile:
    """A file that never allocates more for a read than it has left."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.readline = file.readline
        start = file.tell()
        self._size = file.seek(0, 2)
        file.seek(start)

    def read(self, size: int) -> bytes:
        """Read exactly `size` bytes."""
        if not 0 <= size <= self._size - self._file.tell():
            raise EOFError("it ends within a value")
        return self._file.read(size)


# The unpickler in C allocates as much memory as a damaged file demands.
PythonUnpickler: Any = pickle._Unpickler


class Unpickler(PythonUnpickler):  # type: ignore[misc]
    """Unpickler for arrays, tensors and plain containers."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(PythonUnpickler.dispatch)

    def __init__(self, file: BinaryIO, *, encoding: str = "ASCII", errors: str = "strict") -> None:
        """Read from the current position of a file; the encoding is that of Python 2's strings."""
        super().__init__(BoundedFile(file), encoding=encoding, errors=errors)

    def find_class(self, module: str, name: str) -> Any:
        """Return a function of CONSTRUCTORS, or a placeholder.

        Raises:
            CheckpointError: it could run code; see `opaque_type`.
        """
        module = CURRENT_NAMES.get(module, module).replace("numpy.core.", "numpy._core.", 1)
        return CONSTRUCTORS.get((module, name)) or opaque_type(module, name)

    def get_extension(self, code: int) -> None:
        """Reject a number that stands for an import of the reading program's choice."""
        raise UnpicklingError(f"it refers to extension {code} of another program")

    def load_build(self) -> None:
        """Set the state of an array; drop that of any other object."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], STATEFUL):
            self.stack[-1].__setstate__(state)

    def load_newobj(self) -> None:
        """Create a placeholder, or what a listed function creates."""
        arguments = self.stack.pop()
        self.stack[-1] = _call(self.stack[-1], arguments)

    def load_newobj_ex(self) -> None:
        """Create a placeholder; keywords are dropped."""
        self.stack.pop()
        self.load_newobj()

    def load_reduce(self) -> None:
        """Call a listed function, or create a placeholder."""
        self.load_newobj()

    def load_bytearray8(self) -> None:
        """Read a bytearray without allocating it first."""
        size = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(size)))

    def load_binpersid(self) -> None:
        """Load a storage; of a module, skip the source code that old files have beside it."""
        identifier = self.stack.pop()
        is_module = (
            isinstance(identifier, tuple) and len(identifier) > 1 and identifier[0] == "module"
        )
        self.append(identifier[1] if is_module else self.persistent_load(identifier))

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.BINPERSID[0]] = load_binpersid
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def _instantiate(self, function: Any, arguments: Any) -> None:
        """Create the object of the opcodes INST and OBJ."""
        self.append(_call(function, arguments))


def load(file: BinaryIO, **options: Any) -> Any:
    """Unpickle the next object of a file."""
    return Unpickler(file, **options).load()


def _call(function: Any, arguments: Any) -> Any:
    if isinstance(function, type) and issubclass(function, Opaque):
        return function()
    if isinstance(function, Opaque):
        return function
    if not any(function is constructor for constructor in CONSTRUCTORS.values()):
        raise UnpicklingError("it calls what is not a function")
    return function(*arguments)
