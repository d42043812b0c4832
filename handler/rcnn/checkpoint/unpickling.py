"""Pickles of numpy arrays, and of nothing that could run."""

import pickle
from typing import Any

from handler.rcnn.checkpoint.errors import CheckpointError

# All that a pickle of numpy arrays in plain containers needs, under numpy 1's and 2's names.
NUMPY_GLOBALS = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    ),
}


class NumpyUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays and plain containers; anything else is refused before it runs."""

    def find_class(self, module: str, name: str) -> Any:
        """The named global, if it is one of NUMPY_GLOBALS."""
        if (module, name) in NUMPY_GLOBALS:
            return super().find_class(module, name)
        raise CheckpointError(
            f"the pickle asks for {module}.{name}, which could run code; "
            "only numpy arrays and plain containers are read"
        )
