"""Stages of a request, each beside its baselines."""
