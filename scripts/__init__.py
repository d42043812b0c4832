"""Maintenance of this repository."""
