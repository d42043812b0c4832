"""Where built models lie, and what they are called there."""

import re
from pathlib import Path

from scripts.errors import CommandError

STORE = Path("model-store")
# SageMaker's settings bind to this version alone.
MODEL_VERSION = "1.0"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def check_name(name: str) -> str:
    """The name of a model, which is also that of its files.

    Raises:
        CommandError: it could lead out of the store, or is none that TorchServe takes.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise CommandError(f"NAME {name!r}: use letters, digits, - and _, such as my-model")
    return name
