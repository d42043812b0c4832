"""Fake AWS services in front of a container."""

from tests.client.conftest import aws, connect, moto_url

__all__ = ["aws", "connect", "moto_url"]
