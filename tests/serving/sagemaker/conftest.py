"""An AWS of the tests' own, for what is sent to a container through an endpoint."""

from tests.client.conftest import aws, invoke, moto_url

__all__ = ["aws", "invoke", "moto_url"]
