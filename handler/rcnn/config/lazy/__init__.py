"""Detectron2's lazy configs, which name classes and their arguments, as a `ModelConfig`."""
