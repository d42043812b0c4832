"""Detections -> responses (bytes and headers)."""
