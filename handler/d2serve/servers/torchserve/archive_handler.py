"""The entry point of a model archive, where it lies as `handler.py`."""

import sys
from pathlib import Path

# TorchServe appends the archive's folder; its own copy of d2serve comes before an installed one.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from d2serve.servers.torchserve.handler import Detectron2Handler  # noqa: E402


class Handler(Detectron2Handler):
    """The one class of this module, as TorchServe expects."""
