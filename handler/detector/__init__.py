"""Detectors: pictures become detections."""
