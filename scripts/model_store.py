"""Where built models lie, and what they are called there."""

import re
from pathlib import Path

STORE = Path("model-store")
# SageMaker's settings bind to this version alone.
MODEL_VERSION = "1.0"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
