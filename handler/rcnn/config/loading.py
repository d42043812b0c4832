"""Configs of both kinds that Detectron2 has: of keys (`CfgNode`), and lazy ones (`LazyConfig`)."""

from pathlib import Path
from typing import Any

from handler.rcnn.config.lazy.model import parse_lazy
from handler.rcnn.config.model import ModelConfig, parse_keys
from handler.rcnn.lazy_yaml import MODEL_KEY, is_lazy_config, read_lazy_config
from handler.rcnn.yaml_config import read_yaml_config


def load_config(path: Path) -> ModelConfig:
    """Reads and checks a YAML config.

    Raises:
        ConfigError: it cannot be read; else see `parse_config`.
    """
    return parse_config(read_config(path))


def read_config(path: Path) -> dict[str, Any]:
    """What a YAML config sets explicitly.

    Raises:
        ConfigError: it cannot be read.
    """
    return read_lazy_config(path) if is_lazy_config(path) else read_yaml_config(path)


def parse_config(explicit: dict[str, Any]) -> ModelConfig:
    """Checks what a config sets explicitly.

    Raises:
        ConfigError: it asks for something that is not supported; the message names every such key
            with its value.
    """
    return parse_lazy(explicit) if MODEL_KEY in explicit else parse_keys(explicit)
