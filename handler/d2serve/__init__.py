"""Serve Detectron2 models in production, or run them in a Python program.

Build an archive of a model, load it and run images:

    >>> import d2serve
    >>> archive = d2serve.build_archive(
    ...     "models/shapes/config.yaml",
    ...     "models/shapes/model_final.pth",
    ...     "model-store/shapes.mar",
    ...     class_names="models/shapes/classes.json",
    ... )
    >>> with d2serve.load(archive) as model:
    ...     [detections] = model.predict("models/shapes/samples/shapes_02.png", score_threshold=0.9)
    >>> detections.class_names
    ('cross', 'star', 'circle', 'square', 'triangle')
    >>> [x, y, width, height] = detections.to_coco()[0]["bbox"]

`Detections` describes the result; its methods convert masks to RLE, polygons or arrays, and all of
it to COCO results. All errors derive from `D2ServeError` (see `d2serve.errors`). Servers are
started with the command `d2serve serve`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from d2serve.errors import (
    ArchiveError,
    CheckpointError,
    ClassNamesError,
    CommandError,
    ConfigError,
    D2ServeError,
    DeviceLostError,
    ImageError,
    PredictionError,
    RequestError,
    RuntimeUnavailableError,
    SettingsError,
    UnreachableError,
)
from d2serve.messages import VERSION

if TYPE_CHECKING:
    from d2serve.api import Model, load
    from d2serve.building.archive import build_archive
    from d2serve.client import AsyncClient, Client
    from d2serve.detections import Detections

__version__ = VERSION
__all__ = [
    "ArchiveError",
    "AsyncClient",
    "CheckpointError",
    "ClassNamesError",
    "Client",
    "CommandError",
    "ConfigError",
    "D2ServeError",
    "Detections",
    "DeviceLostError",
    "ImageError",
    "Model",
    "PredictionError",
    "RequestError",
    "RuntimeUnavailableError",
    "SettingsError",
    "UnreachableError",
    "__version__",
    "build_archive",
    "load",
]
# Imported on first use: torch takes seconds, and archives lack `building` and `client`.
_LAZY = {
    "AsyncClient": "d2serve.client",
    "Client": "d2serve.client",
    "Detections": "d2serve.detections",
    "Model": "d2serve.api",
    "build_archive": "d2serve.building.archive",
    "load": "d2serve.api",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_LAZY[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
