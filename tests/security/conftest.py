"""A running server and its client, as the serving tests have them."""

from tests.serving.conftest import http, jpeg, samples

__all__ = ["http", "jpeg", "samples"]
