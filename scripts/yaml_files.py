"""YAML as an archive holds it."""

from pathlib import Path
from typing import Any

import yaml


def write_yaml(path: Path, content: Any) -> None:
    """Writes mappings, sequences, numbers and texts; tuples become lists."""
    path.write_text(yaml.safe_dump(_plain(content), sort_keys=False), encoding="utf-8")


def _plain(node: Any) -> Any:
    """YAML's own types alone, for a safe dump."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    return [_plain(value) for value in node] if isinstance(node, (list, tuple)) else node
