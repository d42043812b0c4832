"""Client of a d2serve server or a SageMaker endpoint.

`Client` and `AsyncClient` return `Detections`; a `Sender` with one of the transports returns the
unparsed response.
"""

from typing import TYPE_CHECKING, Any

from d2serve.client.async_client import AsyncClient
from d2serve.client.client import Client
from d2serve.client.http import AsyncHttpTransport, HttpTransport
from d2serve.client.sender import AsyncSender, Sender
from d2serve.client.transport import Payload, Reply
from d2serve.client.urls import DEFAULT_URL
from d2serve.errors import PredictionError, UnreachableError

if TYPE_CHECKING:
    from d2serve.client.sagemaker import (
        AsyncEndpointTransport,
        EndpointTransport,
        endpoint_transport,
    )

__all__ = [
    "DEFAULT_URL",
    "AsyncClient",
    "AsyncEndpointTransport",
    "AsyncHttpTransport",
    "AsyncSender",
    "Client",
    "EndpointTransport",
    "HttpTransport",
    "Payload",
    "PredictionError",
    "Reply",
    "Sender",
    "UnreachableError",
    "endpoint_transport",
]
SAGEMAKER = ("AsyncEndpointTransport", "EndpointTransport", "endpoint_transport")


def __getattr__(name: str) -> Any:
    """Import the SageMaker transports on first use: they need boto3, of the extra `aws`."""
    if name not in SAGEMAKER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from d2serve.client import sagemaker

    return getattr(sagemaker, name)
