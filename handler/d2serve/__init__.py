"""Serve Detectron2 models in production."""
