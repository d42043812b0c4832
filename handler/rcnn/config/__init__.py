"""Detectron2's configs, as far as inference reads them."""

from handler.rcnn.config.loading import load_config, parse_config, read_config
from handler.rcnn.config.model import ModelConfig
from handler.rcnn.yaml_config import ConfigError

__all__ = ["ConfigError", "ModelConfig", "load_config", "parse_config", "read_config"]
