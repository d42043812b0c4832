"""Payloads that leave a trace where they run, and proof that each would."""

import os
import pickle
from pathlib import Path
from typing import Any


class Command:
    """Runs a shell command when a plain unpickler reads it."""

    def __init__(self, trace: Path) -> None:
        self.command = f"touch '{trace}'"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def assert_dangerous(pickled: bytes, trace: Path) -> None:
    """Check that a plain unpickler runs it, and remove the trace."""
    pickle.loads(pickled)
    assert trace.exists(), "the payload does not run"
    trace.unlink()
