"""Detectors: images in, detections out."""
