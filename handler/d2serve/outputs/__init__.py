"""Detections -> HTTP response bodies."""
