"""A client of d2serve: a local server or a SageMaker endpoint, by the same calls.

with Client(HttpTransport("http://127.0.0.1:8080/invocations")) as client:
    [prediction] = client.detect(Path("picture.jpg"))
    prediction.boxes_xyxy, prediction.names, prediction.masks()
"""

from scripts.client.async_endpoint import AsyncEndpointTransport
from scripts.client.client import Client
from scripts.client.connecting import endpoint_transport
from scripts.client.endpoint import EndpointTransport
from scripts.client.errors import PredictionError, UnreachableError
from scripts.client.http import DEFAULT_URL, HttpTransport
from scripts.client.messages import Payload, Reply
from scripts.client.predictions import Prediction

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
