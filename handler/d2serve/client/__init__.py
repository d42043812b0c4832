"""Client for a d2serve server or a SageMaker endpoint, through one interface.

Examples:
    >>> from pathlib import Path
    >>> from d2serve.client import Client, HttpTransport
    >>> with Client(HttpTransport("http://127.0.0.1:8080/invocations")) as client:
    ...     [prediction] = client.detect(Path("image.jpg"))  # doctest: +SKIP
    ...     print(prediction.boxes_xyxy, prediction.names)  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from d2serve.client.client import Client
from d2serve.client.http import DEFAULT_URL, HttpTransport
from d2serve.client.predictions import Prediction
from d2serve.client.transport import Payload, Reply
from d2serve.errors import PredictionError, UnreachableError

if TYPE_CHECKING:
    from d2serve.client.sagemaker import (
        AsyncEndpointTransport,
        EndpointTransport,
        endpoint_transport,
    )

__all__ = [
    "DEFAULT_URL",
    "AsyncEndpointTransport",
    "Client",
    "EndpointTransport",
    "HttpTransport",
    "Payload",
    "Prediction",
    "PredictionError",
    "Reply",
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
