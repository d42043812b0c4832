"""A client of d2serve: a local server or a SageMaker endpoint, by the same calls.

with Client(HttpTransport("http://127.0.0.1:8080/invocations")) as client:
    [prediction] = client.detect(Path("picture.jpg"))
    prediction.boxes_xyxy, prediction.names, prediction.masks()
"""

from d2serve.client.client import Client
from d2serve.client.http import DEFAULT_URL, HttpTransport
from d2serve.client.predictions import Prediction
from d2serve.client.sagemaker import AsyncEndpointTransport, EndpointTransport, endpoint_transport
from d2serve.client.transport import Payload, PredictionError, Reply, UnreachableError

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
