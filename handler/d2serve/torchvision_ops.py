"""torchvision's compiled operators without its Python package."""

from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch


def load_operators(library: str, namespace: str, names: Sequence[str]) -> Any:
    """Load one of torchvision's libraries of operators and return its namespace of `torch.ops`.

    Importing the whole package takes seconds, so it is imported only if the library does not
    register all operators, as in versions that keep them elsewhere.

    Args:
        library: the file name up to its first dot, such as `_C`.
        namespace: of `torch.ops`.
        names: the required operators.

    Raises:
        AttributeError: the package does not register the operators either.
        ImportError, OSError: torchvision is not installed or does not match the version of torch.
    """
    path = _path(library)
    if path is not None:
        torch.ops.load_library(path)
    operators = getattr(torch.ops, namespace)
    if not all(hasattr(operators, name) for name in names):
        import_module("torchvision.io")
    return operators


def _path(library: str) -> Path | None:
    spec = find_spec("torchvision")
    folders = (spec and spec.submodule_search_locations) or ()
    paths = (
        Path(folder) / f"{library}{suffix}" for folder in folders for suffix in EXTENSION_SUFFIXES
    )
    return next((path for path in paths if path.is_file()), None)
