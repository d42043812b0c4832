"""torchvision's compiled operators without its Python package."""

from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch


def load_operators(library: str, namespace: str, names: Sequence[str]) -> Any:
    """The operators of one of torchvision's libraries, as `torch.ops` has them.

    Where they are not there, as in a version that has them elsewhere, the package is imported.

    Args:
        library: such as `_C`, the file's name up to its first dot.
        namespace: of `torch.ops`.
        names: the operators that are needed.

    Raises:
        AttributeError: the package does not bring them either.
        ImportError, OSError: there is no torchvision, or it is not for this torch.
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
