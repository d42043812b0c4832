"""The entry point of a model archive, which holds it as `handler.py`."""

import sys
from pathlib import Path

# The archive's own copy of d2serve takes precedence over an installed one.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from d2serve.servers.torchserve.handler import Detectron2Handler


class Handler(Detectron2Handler):
    """TorchServe requires exactly one class that is defined in this module."""
