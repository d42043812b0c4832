"""Requests (bytes and headers) -> images and options."""
