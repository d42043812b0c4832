"""Servers that mount the serving core."""
