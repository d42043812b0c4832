"""Reads and writes TorchServe's config.properties."""

from collections.abc import Mapping
from pathlib import Path


def read_properties(path: Path) -> dict[str, str]:
    """Return the `key=value` lines of a properties file, comments left out."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write a properties file that both Java and TorchServe's own Python reader understand."""
    lines = (f"{key}={value}\n" for key, value in properties.items())
    path.write_text("".join(lines), encoding="utf-8")
