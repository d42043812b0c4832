"""Faults of a Ray cluster under load, with every response checked."""
