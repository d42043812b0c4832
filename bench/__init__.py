"""Measurements: how quick and how exact the network is."""
