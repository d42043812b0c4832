"""Placeholders for the objects of a pickle that are not weights; nothing is imported for them."""

import sys
from typing import Any, ClassVar

import numpy as np

from d2serve.errors import CheckpointError

MAX_NAME_LENGTH = 80
# Python 2's names of modules.
CURRENT_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg", "commands": "subprocess"}
# Types of the standard library that training state contains; anything else of it could be the
# function of an exploit, and such a file is better rejected than read.
PLAIN_MODULES = {"collections", "datetime", "decimal", "enum", "fractions", "numbers", "uuid"}
PLAIN_TYPES = {
    "builtins": {
        *("Ellipsis", "NoneType", "NotImplemented", "ellipsis", "object", "slice", "type"),
        *("bool", "complex", "float", "int", "long", "range", "xrange"),
        *("bytearray", "bytes", "dict", "frozenset", "list", "set", "str", "tuple", "unicode"),
    },
    "argparse": {"Namespace"},
    "functools": {"partial"},
    "itertools": {"count", "cycle"},
    "logging": {"Logger", "getLogger"},
    "pathlib": {
        *("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"),
    },
    "random": {"Random"},
    "types": {"MappingProxyType", "SimpleNamespace"},
}


class Opaque:
    """An object of a pickle; only the name of its type is kept.

    Attributes:
        source: the type's module and name.
    """

    source: ClassVar[str] = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Opaque":
        """Create the placeholder; the arguments of the original are dropped."""
        return super().__new__(cls)

    def __call__(self, *args: Any, **kwargs: Any) -> "Opaque":
        """Return a placeholder for the result of a call."""
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        """Drop an item of a mapping."""

    def append(self, item: Any) -> None:
        """Drop an item of a list."""

    def add(self, item: Any) -> None:
        """Drop an item of a set."""


def opaque_type(module: str, name: str) -> type[Opaque]:
    """Return the placeholder of a type or function, which is not imported.

    Raises:
        CheckpointError: it belongs to the standard library and is not among PLAIN_TYPES.
    """
    module = CURRENT_NAMES.get(module, module)
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names and not _is_plain(top, name):
        raise CheckpointError(
            f"the pickle imports {shortened(f'{module}.{name}')}, which could run code; accepted "
            "are only tensors, numpy arrays and plain containers. If you trust its source, load it "
            'there and save the weights: torch.save({"model": model.state_dict()}, path)'
        )
    return type("Opaque", (Opaque,), {"source": shortened(f"{module}.{name}")})


def opaque_attribute(owner: Any, name: Any, *_: Any) -> type[Opaque]:
    """Return the placeholder of `getattr(owner, name)`, such as a method of an LR scheduler.

    Raises:
        CheckpointError: see `opaque_type`.
    """
    is_type = isinstance(owner, type) and issubclass(owner, Opaque)
    if not is_type and not isinstance(owner, Opaque):
        raise CheckpointError("the pickle imports builtins.getattr, which could run code")
    module, _, type_name = owner.source.rpartition(".")
    return opaque_type(module, f"{type_name}.{name}")


def describe(value: Any) -> str:
    """Name the type of an object of a pickle, for an error."""
    if isinstance(value, type) and issubclass(value, Opaque):
        return f"reference to {value.source}, which could run code"
    if isinstance(value, Opaque):
        return f"pickled {value.source} object"
    if isinstance(value, np.ndarray):
        return f"numpy.ndarray of dtype {value.dtype}"
    return type(value).__name__


def shortened(text: str) -> str:
    """Return text of a file that is safe to print in one line."""
    printable = text if text.isprintable() else ascii(text)
    if len(printable) <= MAX_NAME_LENGTH:
        return printable
    return f"{printable[: MAX_NAME_LENGTH - 3]}..."


def _is_plain(module: str, name: str) -> bool:
    return module in PLAIN_MODULES or name in PLAIN_TYPES.get(module, ())
