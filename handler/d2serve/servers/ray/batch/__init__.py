"""Batch inference on Ray Data: many images offline, on one machine or a cluster."""
